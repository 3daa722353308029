"""Results made of arrays, tables and plain values, as files that hold data and nothing else.

A structure is a tree of mappings, sequences, dataclasses and named tuples of this package, with arrays,
sparse matrices, tables, numbers and texts as leaves. Its shape goes into ``structure.json``, numeric arrays
into ``arrays.safetensors``, tables into Parquet, lists of texts into JSON. Reading builds only classes of
``helix_sae`` that are dataclasses or named tuples.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from kedro.io.core import get_filepath_str
from kedro_datasets._typing import JSONPreview
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from scipy import sparse

from helix_sae.datasets.directory import DirectoryDataset
from helix_sae.errors import StoreError
from helix_sae.storage import canonical_json, inside, is_local, read_file

_PACKAGE = "helix_sae."
_STRUCTURE, _ARRAYS, _TEXTS = "structure.json", "arrays.safetensors", "texts.json"
_KIND = "kind"
_SHOWN = 12
"""Entries of a mapping or a list that a preview names."""


class StructureDataset(DirectoryDataset[Any, Any]):
    """A folder that holds one structure of arrays, tables and plain values.

    Arrays come back as they were (dtype, shape, sparse format), tables with their types, classes of this
    package as themselves. Parameters are those of :class:`~helix_sae.datasets.directory.DirectoryDataset`.

    Examples
    --------
    ::

        sparse_codes:
          type: helix_sae.datasets.structures.StructureDataset
          filepath: data/07_model_output/sparse_codes
          versioned: true
    """

    format_name: ClassVar[str] = "helix-sae-structure/1"

    def _write(self, data: Any, folder: Path) -> None:
        save_structure(data, folder)

    def _read(self, folder: Path) -> Any:
        return load_structure(folder)

    def preview(self) -> JSONPreview:
        """Return the names, types and shapes of the parts; no array is read."""
        source = get_filepath_str(self._get_load_path(), self._protocol)
        tree = json.loads(read_file(self._fs, f"{source}/{_STRUCTURE}"))
        shapes = _shapes(Path(source) / _ARRAYS) if is_local(self._fs) else {}
        return JSONPreview(json.dumps(_outline(tree, shapes)))


def save_structure(data: object, folder: Path) -> None:
    """Write a structure into a folder.

    Raises
    ------
    StoreError
        If a part is of a type that cannot be kept without running code when it is read.
    """
    writer = _Writer(folder)
    tree = writer.encode(data, "data")
    save_file(writer.arrays, folder / _ARRAYS)
    (folder / _TEXTS).write_bytes(canonical_json(writer.texts))
    (folder / _STRUCTURE).write_bytes(canonical_json(tree))


def load_structure(folder: Path) -> Any:
    """Read a structure that :func:`save_structure` wrote.

    Raises
    ------
    StoreError
        If a file is missing or malformed, or names a class that this package does not have.
    """
    try:
        tree = json.loads((folder / _STRUCTURE).read_bytes())
        texts = cast("dict[str, list[str | None]]", json.loads((folder / _TEXTS).read_bytes()))
        arrays = load_file(folder / _ARRAYS)
        return _Reader(folder, arrays, texts).decode(tree)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(
            f"{folder}: the structure cannot be read ({error!r}); load another version, or make it again."
        ) from error


def _shapes(path: Path) -> dict[str, str]:
    """Type and shape of each stored array, from the header of the file."""
    with cast("Any", safe_open(path, framework="numpy")) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - a handle, not a mapping
        return {name: f"{part.get_dtype()} {tuple(part.get_shape())}" for name, part in parts.items()}


def _outline(tree: Any, shapes: Mapping[str, str]) -> Any:
    """A structure's tree in words: what a reader wants to see of it, short."""
    if not isinstance(tree, dict):
        return tree
    node = cast("dict[str, Any]", tree)
    match node[_KIND]:
        case "float":
            return node["value"]
        case "array" | "scalar":
            return f"array {shapes.get(node['name'], '')}".rstrip()
        case "texts":
            return f"texts {tuple(node['shape'])}"
        case "sparse":
            return f"sparse {node['format']} {tuple(node['shape'])}"
        case "table":
            return "table"
        case "mapping":
            keys = [str(_outline(key, shapes)) for key in node["keys"]]
            entries = dict(zip(keys, node["values"], strict=True))
        case "object":
            entries = cast("dict[str, Any]", node["fields"])
        case _:
            entries = {str(i): item for i, item in enumerate(node["items"])}
    shown = {key: _outline(value, shapes) for key, value in list(entries.items())[:_SHOWN]}
    return shown | ({"...": f"{len(entries) - _SHOWN} more"} if len(entries) > _SHOWN else {})


class _Writer:
    """Turns objects into a JSON tree, and collects the arrays and texts that it refers to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, np.ndarray] = {}
        self.texts: dict[str, list[str | None]] = {}

    def encode(self, value: object, path: str) -> object:
        """Tree of a value; ``path`` names it in messages and in the files."""
        # First, since NumPy's float64 is also a float of Python.
        if isinstance(value, np.generic):
            return self._array(np.asarray(value), path, "scalar")
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
        if isinstance(value, np.ndarray):
            return self._array(value, path, "array")
        if sparse.issparse(value):
            return self._sparse(value, path)
        if isinstance(value, pd.DataFrame):
            return self._table(value, path)
        return self._container(value, path)

    def _container(self, value: object, path: str) -> object:
        if isinstance(value, Mapping):
            entries = cast("Mapping[object, object]", value)
            keys = [self.encode(key, f"{path}.key") for key in entries]
            values = [self.encode(entry, f"{path}[{key}]") for key, entry in entries.items()]
            return {_KIND: "mapping", "keys": keys, "values": values}
        fields = _fields_of(value)
        if fields is not None:
            name = _class_name(type(value), path)
            encoded = {field: self.encode(getattr(value, field), f"{path}.{field}") for field in fields}
            return {_KIND: "object", "class": name, "fields": encoded}
        if isinstance(value, list | tuple):
            items = [
                self.encode(item, f"{path}[{i}]") for i, item in enumerate(cast("Sequence[object]", value))
            ]
            return {_KIND: "tuple" if isinstance(value, tuple) else "list", "items": items}
        raise StoreError(
            f"{path} is of type {type(value).__module__}.{type(value).__qualname__}, which cannot be stored "
            "as plain data; arrays, sparse matrices, tables, numbers, texts and structures of them can."
        )

    def _array(self, array: np.ndarray, path: str, kind: str) -> dict[str, object]:
        if array.dtype.kind in "OUT":
            texts = [None if item is None else item for item in cast("list[object]", array.ravel().tolist())]
            if not all(item is None or isinstance(item, str) for item in texts):
                raise StoreError(
                    f"{path} is an array of objects that are not texts; it cannot be stored as plain data."
                )
            self.texts[path] = cast("list[str | None]", texts)
            return {_KIND: "texts", "name": path, "shape": list(array.shape), "dtype": array.dtype.str}
        if array.dtype.kind not in "biuf":
            raise StoreError(f"{path} is an array of {array.dtype}, which cannot be stored.")
        self.arrays[path] = np.array(array, order="C")
        return {_KIND: kind, "name": path}

    def _sparse(self, value: Any, path: str) -> dict[str, object]:
        if value.format not in ("csr", "csc"):
            raise StoreError(f"{path} is a sparse {value.format} array; only csr and csc can be stored.")
        parts = {part: self._array(getattr(value, part), f"{path}.{part}", "array") for part in _SPARSE_PARTS}
        is_array = isinstance(value, sparse.sparray)
        return {
            _KIND: "sparse",
            "format": value.format,
            "array": is_array,
            "shape": list(value.shape),
            "parts": parts,
        }

    def _table(self, table: pd.DataFrame, path: str) -> dict[str, object]:
        name = f"{path}.parquet"
        table.to_parquet(self.folder / name)
        return {_KIND: "table", "file": name}


_SPARSE_PARTS = ("data", "indices", "indptr")


class _Reader:
    """Builds objects from a JSON tree and what it refers to."""

    def __init__(
        self, folder: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str | None]]
    ) -> None:
        self.folder, self.arrays, self.texts = folder, arrays, texts

    def decode(self, tree: Any) -> Any:
        """Value of a tree."""
        if not isinstance(tree, dict):
            return tree
        node = cast("dict[str, Any]", tree)
        match node[_KIND]:
            case "float":
                return float(node["value"])
            case "array":
                return self.arrays[node["name"]]
            case "scalar":
                return self.arrays[node["name"]][()]
            case "texts":
                return np.array(self.texts[node["name"]], dtype=node["dtype"]).reshape(node["shape"])
            case "sparse":
                return self._sparse(node)
            case "table":
                return pd.read_parquet(inside(str(self.folder), node["file"], str(self.folder / _STRUCTURE)))
            case "mapping":
                return dict(
                    zip(map(self.decode, node["keys"]), map(self.decode, node["values"]), strict=True)
                )
            case "tuple":
                return tuple(map(self.decode, node["items"]))
            case "list":
                return list(map(self.decode, node["items"]))
            case "object":
                fields = {name: self.decode(value) for name, value in node["fields"].items()}
                return _class_named(node["class"])(**fields)
            case other:
                raise StoreError(f"{self.folder}: a part of unknown kind {other!r}.")

    def _sparse(self, node: Mapping[str, Any]) -> Any:
        parts = tuple(self.decode(node["parts"][part]) for part in _SPARSE_PARTS)
        made = {
            ("csr", True): sparse.csr_array,
            ("csc", True): sparse.csc_array,
            ("csr", False): sparse.csr_matrix,
            ("csc", False): sparse.csc_matrix,
        }[node["format"], node["array"]]
        matrix = made(parts, shape=tuple(node["shape"]))
        check_sparse(matrix, str(node["parts"]["data"]["name"]).removesuffix(".data"))
        return matrix


def check_sparse(matrix: Any, name: str) -> None:
    """Look at all of a CSR or CSC matrix before compiled code, which trusts its indices, sees it.

    Raises
    ------
    StoreError
        If rows do not follow one another, an index is out of bounds, or a value is not finite.
    """
    try:
        matrix.check_format(full_check=True)
        if matrix.data.dtype.kind == "f" and not np.isfinite(matrix.data).all():
            raise ValueError("a value is not finite")
    except ValueError as error:
        raise StoreError(
            f"{name}: not a sparse matrix ({error}); it was damaged or tampered with. Load another version."
        ) from error


def _fields_of(value: object) -> tuple[str, ...] | None:
    """Field names of a dataclass or named tuple, None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in dataclasses.fields(value))
    return getattr(value, "_fields", None) if isinstance(value, tuple) else None


def _class_name(kind: type, path: str) -> str:
    if not kind.__module__.startswith(_PACKAGE) or "." in kind.__qualname__:
        raise StoreError(
            f"{path} is a {kind.__module__}.{kind.__qualname__}; only structures of helix_sae can be stored."
        )
    return f"{kind.__module__}.{kind.__qualname__}"


def _class_named(name: str) -> type:
    """Class of this package by its name; nothing else is ever built."""
    module, _, qualname = name.rpartition(".")
    found = getattr(import_module(module), qualname, None) if module.startswith(_PACKAGE) else None
    is_data = isinstance(found, type) and (dataclasses.is_dataclass(found) or hasattr(found, "_fields"))
    if not is_data or found.__module__ != module:
        raise StoreError(
            f"The stored structure names {name!r}, which is no data class of this version of helix_sae."
        )
    return found  # pyright: ignore[reportReturnType]
