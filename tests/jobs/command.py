"""The command as a user runs it, without a process of its own."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from jobs import cli


@dataclass(frozen=True)
class Done:
    """What is left of a finished command."""

    returncode: int
    stdout: str
    stderr: str


def legrad(*arguments: str, cwd: Path | None = None) -> Done:
    """``legrad ARGUMENTS`` in this process, in the Ray session that there is, if any."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.object(sys, "argv", ["legrad", *arguments]),
        pytest.raises(SystemExit) as exit_code,
    ):
        cli.main()
    return Done(int(exit_code.value.code or 0), stdout.getvalue(), stderr.getvalue())
