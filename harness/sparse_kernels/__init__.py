"""Sparse kernels for masked layers, where they were measured to be faster than dense ones."""
