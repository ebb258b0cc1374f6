"""Data of tasks: described, downloaded, checked, decoded once, and loaded in batches."""
