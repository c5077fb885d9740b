"""Variables that come with a submitted job, in a file of its package.

Ray's own way, ``env_vars`` of the runtime environment, would write their values to the logs of
every node and show them to whoever lists the jobs.
"""

import json
import os
from pathlib import Path

VARIABLES = "legrad-variables.json"


def load() -> None:
    """Take them over; every process of the job starts with this (``worker_process_setup_hook``)."""
    file = Path.cwd() / VARIABLES
    if file.exists():
        os.environ.update(json.loads(file.read_text(encoding="utf-8")))
