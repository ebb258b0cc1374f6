"""Depth from one image: NYU Depth v2, and rendered rooms in its format."""
