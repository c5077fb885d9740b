"""This machine; no Ray."""

import getpass
import os
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_table() -> str:
    """Names the table that process ids of this process are looked up in.

    Host, boot and namespace: two containers may share a host's name and have each a process 7.
    """
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    table = str(_PROCESSES.readlink()) if _PROCESSES.is_symlink() else ""
    return " ".join([socket.gethostname(), boot, table]).strip()


def user() -> str:
    """Name of the user, or the number of one without a name, as containers have."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
