"""Kinds of tables, one a file."""
