"""Stereo: the disparity of each pixel from two images (PSMNet)."""
