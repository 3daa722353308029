"""Names of half-written files: whose they are can be told from them, so that what a killed process left can be removed."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def temporary_prefix() -> str:
    """Start of the names of this process's temporary files."""
    return f"{_host_prefix()}{os.getpid()}-"


def remove_abandoned(folder: str) -> None:
    """Remove what killed processes of this machine left half-written directly in a local folder."""
    start = _host_prefix()
    for path in Path(folder).glob(f"{TEMPORARY_PREFIX}*"):
        owner = path.name.removeprefix(start).split("-")[0]
        if path.name.startswith(start) and owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _host_prefix() -> str:
    return f"{TEMPORARY_PREFIX}{socket.gethostname()}-"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
