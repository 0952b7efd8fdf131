"""Bytes: where they come from, how many may be taken, and how files are replaced without ever being half written."""
