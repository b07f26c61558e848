"""Kinds of tests of a claim, one a file."""
