"""The parts of `export`: what can be exported, the inputs it is tried on, the two forms of file, the comparison."""
