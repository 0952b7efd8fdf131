"""Change the layers of a live model: find the head or the input by evidence, edit, prove that it still runs, undo."""
