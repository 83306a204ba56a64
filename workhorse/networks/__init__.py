"""Policies as Equinox modules, their initialisers, and the heads that turn outputs into actions."""

from workhorse.core import numerics  # noqa: F401
