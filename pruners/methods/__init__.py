"""The methods of the literature, each a short program over a run."""
