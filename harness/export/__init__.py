"""Finished networks in formats of others, which can be used without this project."""
