"""The results folder: whole files, locks, journals, checkpoints and stored networks."""
