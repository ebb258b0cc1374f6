"""Balancing a pole on a cart: a small network trained by deep Q-learning."""
