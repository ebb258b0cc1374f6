"""A pruning event, and what it does to a network."""
