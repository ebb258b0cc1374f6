"""The project's own speed; see `benchmarks.speed.__main__`."""
