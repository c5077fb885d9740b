"""How faithful are a model's maps? Published tests of fidelity, and `legrad evaluate`."""
