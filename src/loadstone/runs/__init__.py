"""A training run on disk, as data: the names of its checkpoints, which are whole, and which ones retention keeps."""
