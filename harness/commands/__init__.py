"""The commands of ``python -m harness``, one file each."""
