"""Environment variables that travel with a submitted job, in a file of its package.

Ray's own way, ``env_vars`` of the runtime environment, would write their values to the logs of
every node and show them to everybody who lists the jobs. This file stays alone because every
process of a job imports it before anything else.
"""

import json
import os
from pathlib import Path

VARIABLES = "legrad-variables.json"


def load() -> None:
    """Set the variables in this process; Ray calls this as ``worker_process_setup_hook``."""
    file = Path.cwd() / VARIABLES
    if file.exists():
        os.environ.update(json.loads(file.read_text(encoding="utf-8")))
