"""Zip archives with one meaning: the directory is proved against the file before a record is read."""
