"""The executors of this project; the contract is in `harness.matrix.executor`."""
