"""Python loads this at its start in every process of an end-to-end run: what would leave the machine fails and is noted.

Refusing alone would not do: libraries that call home do so behind ``except Exception``.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

NOTES = "HELIX_SAE_TEST_CALLS"
"""Variable that names the file in which attempts are noted."""


def stays_here(host: object) -> bool:
    """Whether a host is this machine, or all of its addresses, where a server listens."""
    if host in (None, "", "localhost", b"localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(os.fsdecode(host) if isinstance(host, bytes) else str(host))
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return False


def refuse(call: str, host: object) -> None:
    """Note an attempt with the code that made it, and fail it."""
    with open(os.environ[NOTES], "a", encoding="utf-8") as notes:
        where = "".join(traceback.format_stack(limit=12)[:-2])
        notes.write(f"{call} to {host!r} by {sys.argv}:\n{where}\n")
    raise OSError(f"nothing here may use the network, and {call} to {host!r} would")


def guarded(call: str, original: Callable[..., Any], host_of: Callable[..., Any]) -> Callable[..., Any]:
    """The same function for hosts of this machine."""

    def guard(*arguments: Any, **options: Any) -> Any:
        host = host_of(*arguments, **options)
        if not stays_here(host):
            refuse(call, host)
        return original(*arguments, **options)

    return guard


def peer(this: socket.socket, *arguments: Any) -> object:
    """Host of a socket's address; None for those that are no internet sockets."""
    is_internet = this.family in (socket.AF_INET, socket.AF_INET6)
    return arguments[-1][0] if is_internet and isinstance(arguments[-1], tuple) else None


if os.environ.get(NOTES):
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, guarded(name, getattr(socket.socket, name), peer))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, guarded(name, getattr(socket, name), lambda host=None, *_, **__: host))
