"""Measurements of the assumptions of a policy gradient, on the states of a run."""
