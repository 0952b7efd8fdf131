"""A training run in memory: what belongs to it, saved and brought back, exactly or by name."""
