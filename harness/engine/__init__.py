"""Carrying out one run, from its plan to its record."""
