"""Algorithms that learn from fixed data, one file each."""
