"""Handwritten digits: the 1,797 real 8x8 images that scikit-learn ships."""
