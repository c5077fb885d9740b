"""The command as a user runs it, in a process of its own."""

import subprocess
import sys
from pathlib import Path


def legrad(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``legrad ARGUMENTS``; streams as text, the exit code as it is."""
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
