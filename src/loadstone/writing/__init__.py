"""Bytes out: torch zips, safetensors files and folders of them, each written whole or not at all."""
