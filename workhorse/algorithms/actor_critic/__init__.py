"""Algorithms that learn a policy and the value of its actions from a replay."""
