"""Errors that end a command with one message: what was expected, what was found, what to do."""


class UsageError(Exception):
    """The user can correct it: a wrong setting, a missing file, a refused output. Exit code 2."""


class RunError(Exception):
    """The run could not finish, or its counts do not add up. Exit code 1."""
