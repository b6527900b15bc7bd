"""Where a model comes from, and whether it is what it should be."""
