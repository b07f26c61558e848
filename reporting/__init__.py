"""Run folders as one page."""
