"""Executors: one file each, found through their entry points."""
