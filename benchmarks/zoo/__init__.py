"""Networks that nobody here wrote: which of them can be cut, and what stops the others."""
