"""Progress of a run: the counts that workers report, and the functions that receive them."""
