"""Loops that turn an algorithm and an environment into iterations: one a kind of experience."""
