"""What is run: the project's own speed, and the experiments behind its claims."""
