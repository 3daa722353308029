"""One shard: a safetensors file, named by what it is made from and by what it holds.

``shards/<first two letters>/<key>.<sha256>.safetensors``. The key is a hash of all that the content depends
on; the second name is the file's own SHA-256. A single rename makes a shard complete, with its checksum, and
no two processes can disturb each other: equal content has an equal name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from jaxtyping import Shaped
from safetensors import SafetensorError, TensorSpec, safe_open, serialize_file

from helix_sae.errors import StoreError
from helix_sae.storage import (
    Verify,
    draft_for,
    is_local,
    publish,
    sha256_of_file,
    storage_errors,
)
from helix_sae.temporary import remove_abandoned

METADATA = "helix_sae"

_SHARD_NAME = re.compile(r"(?P<key>[0-9a-f]{64})\.(?P<sha256>[0-9a-f]{64})\.safetensors$")
_REPLACE = "Delete it and run the pipeline that makes it again: only this shard is recomputed."


def shard_path(root: str, key: str, digest: str) -> str:
    """Path of a shard below the store's root."""
    return f"{shard_folder(root, key)}/{key}.{digest}.safetensors"


def shard_folder(root: str, key: str) -> str:
    """Folder of a shard below the store's root."""
    return f"{root}/shards/{key[:2]}"


def parse_shard_path(path: str) -> tuple[str, str] | None:
    """Key and SHA-256 in the name of a shard; None if the file is something else."""
    match = _SHARD_NAME.search(path)
    return None if match is None else (match["key"], match["sha256"])


def present_shards(fs: Any, root: str, keys: Collection[str]) -> list[tuple[str, str]]:
    """Key and path of the files of some keys in a store; what killed processes left there is removed."""
    with storage_errors(root, "read"):
        fs.invalidate_cache(root)
        if not fs.exists(f"{root}/shards"):
            return []
        if is_local(fs):
            for folder in cast("list[str]", fs.ls(f"{root}/shards", detail=False)):
                remove_abandoned(folder)
        found = sorted(cast("list[str]", fs.find(f"{root}/shards")))
    named = [((parse_shard_path(path) or ("",))[0], path) for path in found]
    return [(key, path) for key, path in named if key in keys]


class ShardFile(NamedTuple):
    """A finished file of a shard.

    Attributes
    ----------
    path : str
    n_bytes : int
    header : dict
        Of safetensors: type and shape of each tensor.
    """

    path: str
    n_bytes: int
    header: dict[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """The JSON values that were written with it."""
        return cast("dict[str, Any]", json.loads(self.header["__metadata__"][METADATA]))


def look_at(fs: Any, path: str) -> ShardFile | None:
    """A finished shard by its header alone; None if the file is cut short or no shard."""
    with storage_errors(path, "read"):
        size = int(fs.size(path))
        header = None if parse_shard_path(path) is None else read_header(fs, path, size)
    return None if header is None else ShardFile(path, size, header)


def publish_shard(fs: Any, root: str, key: str, write: Callable[[str], object]) -> ShardFile:
    """Have a shard written into a local file, name it by its checksum and give it its place.

    Raises
    ------
    StoreError
        If it cannot be written, or was cut short.
    """
    folder = shard_folder(root, key)
    with storage_errors(folder, "written"), draft_for(fs, folder) as draft:
        write(draft)
        path, size = shard_path(root, key, sha256_of_file(draft)), os.path.getsize(draft)
        header = read_header(LocalFileSystem(), draft, size)
        if header is None:
            raise StoreError(f"{path}: the shard was cut short as it was written; run again.")
        publish(fs, draft, path)
    return ShardFile(path, size, header)


def write_tensors(
    file: str, arrays: Mapping[str, tuple[str, np.ndarray]], metadata: Mapping[str, object]
) -> None:
    """Write arrays, each with its type as safetensors calls it, and JSON values into a local file.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    contiguous = {name: (dtype, np.ascontiguousarray(array)) for name, (dtype, array) in arrays.items()}
    specs = {
        name: TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, (dtype, array) in contiguous.items()
    }
    stated = json.dumps(dict(metadata), sort_keys=True, allow_nan=False)
    serialize_file(specs, file, metadata={METADATA: stated})


class Shard:
    """A shard opened for reading: a memory map of a local file.

    Parameters
    ----------
    file : str
        The local file.
    path : str
        Named in messages: where the file came from.
    n_bytes, digest
        Size and SHA-256 that the manifest states.
    verify : {"full", "size"}

    Raises
    ------
    StoreError
        If the file is missing, cut short, damaged, or not a shard.
    """

    def __init__(self, file: str, path: str, n_bytes: int, digest: str, verify: Verify) -> None:
        self.path = path
        self.n_bytes = n_bytes
        with storage_errors(path, "read"):
            _check_content(file, path, n_bytes, digest, verify)
            # Torch's tensors are views of the map, NumPy's would be copies.
            try:
                self._file = cast("Any", safe_open)(file, framework="pt")
                self.metadata = cast("dict[str, Any]", json.loads(self._file.metadata()[METADATA]))
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path}: not a shard, or a damaged one ({error}). {_REPLACE}") from error

    def rows(self, tensor: str, start: int = 0, stop: int | None = None) -> Shaped[np.ndarray, "rows *width"]:
        """Rows of a tensor, bfloat16 as float32: a read-only view of the file where they are stored as such."""
        try:
            stored = self._file.get_tensor(tensor)[start:stop]
        except SafetensorError as error:
            raise StoreError(f"{self.path}: the shard has no tensor {tensor!r} ({error}).") from error
        rows = (stored.float() if str(stored.dtype) == "torch.bfloat16" else stored).numpy()
        rows.flags.writeable = False
        return rows


def _check_content(file: str, path: str, n_bytes: int, digest: str, verify: Verify) -> None:
    size = os.path.getsize(file)
    if size != n_bytes:
        raise StoreError(f"{path}: the shard has {size} bytes where the manifest says {n_bytes}. {_REPLACE}")
    if verify == "full" and sha256_of_file(file) != digest:
        raise StoreError(
            f"{path}: the shard's content has changed (its SHA-256 is not that of the manifest). {_REPLACE}"
        )


def read_header(fs: Any, path: str, size: int) -> dict[str, Any] | None:
    """Header of a safetensors file, perhaps a remote one, which the library cannot open; None if it is cut short."""
    length = int.from_bytes(fs.read_block(path, 0, 8), "little")
    if not 0 < length <= size - 8:
        return None
    try:
        header = cast("dict[str, Any]", json.loads(fs.read_block(path, 8, length)))
        ends = [entry["data_offsets"][1] for tensor, entry in header.items() if tensor != "__metadata__"]
        return header if 8 + length + max(ends) == size else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
