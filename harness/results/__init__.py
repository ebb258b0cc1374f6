"""Records: new ones, summaries, comparisons, and frames of whole results folders."""
