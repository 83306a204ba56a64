"""Policies as Equinox modules, their initialisers, and the heads that turn outputs into actions."""
