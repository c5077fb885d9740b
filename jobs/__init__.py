"""The ``legrad`` command."""
