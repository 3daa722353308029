"""Stores on every kind of file system: the local disk, memory, and an S3 server on loopback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_counter = itertools.count()


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, Any]]:
    """Storage options of an S3 server in this process, with the bucket ``store``."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed (extra dev)")
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra cluster)")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "test", "secret": "test", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    s3fs.S3FileSystem(**options).mkdir("store")
    yield options
    server.stop()


@pytest.fixture(params=["local", "memory", "s3"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """URL of a store that is not there yet, and the storage options of its file system."""
    number = next(_counter)
    if request.param == "local":
        return str(tmp_path / "activations"), {}
    if request.param == "memory":
        return f"memory://store{number}/activations", {}
    return f"s3://store/{number}/activations", request.getfixturevalue("s3_options")
