"""What happens at a pruning event, and what is left of a network after it."""
