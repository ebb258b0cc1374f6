"""Advice on which method to take: a few matrices, one after another, and what they have shown."""
