"""StereoSet, and its like in the pocket language."""
