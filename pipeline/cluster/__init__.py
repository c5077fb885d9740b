"""The Ray session of a run: resources, checks before it starts, faults while it runs."""
