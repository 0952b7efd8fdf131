"""Pickles: opcodes to inert values (vm), what they name (globals), and what they mean (interpret).  Nothing is run."""
