"""The demo: a drawn data set with planted cues and true masks."""
