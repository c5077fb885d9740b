"""The output folder of a run: its identity, its parts, and how far it has come."""
