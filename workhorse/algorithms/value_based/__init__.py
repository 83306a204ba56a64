"""Algorithms that act greedily on values of actions learnt from a replay."""
