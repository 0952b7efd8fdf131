"""Bytes: where they come from, how many may be taken, how files are replaced whole, and how they come from the web."""
