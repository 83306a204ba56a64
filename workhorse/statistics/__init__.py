"""Intervals for what was measured. NumPy and SciPy alone."""
