"""The audit of a run, one statistic a file: which classes come with which cues."""
