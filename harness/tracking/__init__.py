"""Trackers show runs in other programs, such as TensorBoard; the contract is in `tracker`."""
