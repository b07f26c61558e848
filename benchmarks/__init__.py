"""Measurements: of the embedded models, and of speed."""
