"""Foundations of every layer: types, the algorithm protocol, addressed randomness, pytrees, errors.

`errors`, `spec` and `addresses` need NumPy alone; everything else imports JAX.
"""
