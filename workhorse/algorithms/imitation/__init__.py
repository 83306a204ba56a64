"""Algorithms that learn from an expert, one file each."""
