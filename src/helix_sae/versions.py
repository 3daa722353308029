"""Versions of the catalog's datasets: which one a run reads and writes, and what is recorded beside each."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from kedro.io import AbstractDataset, AbstractVersionedDataset, CatalogProtocol, DatasetError, MemoryDataset
from kedro.io.core import Version, VersionNotFoundError, get_filepath_str, is_parameter
from kedro.pipeline import Pipeline

from helix_sae.errors import StoreError
from helix_sae.left_out import NOT_MADE, TOLERANT, LeftOut
from helix_sae.lineage import Origin, Record
from helix_sae.storage import digest_of, read_file, storage_errors

PROVENANCE = "provenance.json"

Catalog = CatalogProtocol[Any, Any]

_CLOCKS_DIFFER = timedelta(minutes=10)
"""So much two machines' clocks may disagree."""


def pin_versions(pipeline: Pipeline, catalog: Catalog) -> dict[str, str]:
    """Fix the version of each versioned dataset of a run before it begins.

    An output is saved as, and loaded again from, the run's own version; an input that no ``--load-versions``
    names is loaded from what is the latest version now. Kedro alone resolves "latest" at each load, so that
    of two runs at once one may read what the other one writes. A version without its provenance is not whole,
    and passed over.

    Returns
    -------
    dict
        Version of each versioned input.

    An input that was never made and that only nodes tagged :data:`~helix_sae.left_out.TOLERANT` read is
    replaced by the statement that it is left out.

    Raises
    ------
    StoreError
        If an input is not there at all (it lists all that are missing), or a version is dated in the future.
    """
    for name in sorted(name for node in pipeline.nodes for name in node.outputs):
        dataset = versioned_dataset(catalog[name]) if name in catalog else None
        if dataset is not None:
            save = cast("str", dataset.resolve_save_version())
            _refuse_the_future(name, newest_version(dataset))
            pin(dataset, _pinned_load(dataset) or save, save)
    inputs: dict[str, str] = {}
    missing: list[str] = []
    not_given: list[str] = []
    for name in sorted(name for name in pipeline.inputs() if not is_parameter(name) and name in catalog):
        dataset = versioned_dataset(catalog[name])
        if _only_tolerated(name, pipeline) and not _is_there(catalog[name]):
            maker = f"`kedro registry describe` shows which pipeline makes {name}"
            catalog[name] = MemoryDataset(LeftOut(name, f"{name} {NOT_MADE} ({maker})."))
            continue
        if dataset is not None:
            version = _pinned_load(dataset)
            if version is None:
                version = newest_version(dataset)
                _refuse_the_future(name, version)
            if version is None or read_provenance(dataset, version) is None:
                missing.append(f"  {name}: no whole version at {shown_path(catalog[name])}")
                continue
            inputs[name] = version
            pin(dataset, version, cast("str", dataset.resolve_save_version()))
        if _tells_existence(catalog[name]) and not catalog[name].exists():
            is_users = getattr(catalog[name], "given_by_user", False)
            (not_given if is_users else missing).append(f"  {name}: {shown_path(catalog[name])}")
    _refuse_missing(not_given, missing)
    return inputs


def _refuse_missing(not_given: list[str], missing: list[str]) -> None:
    """Stop where inputs are not there: files that the user names, and what other pipelines make."""
    told: list[str] = []
    if not_given:
        told += [
            "There is no such file or folder:",
            *not_given,
            "Correct the path that `--params` or globals.yml gives (sequences, intervals, probe_sequences).",
        ]
    if missing:
        told += [
            "The run needs inputs that are not there:",
            *missing,
            (
                "Run the pipelines that make them first (`kedro registry describe` shows which), or correct"
                " the paths in the catalog."
            ),
        ]
    if told:
        raise StoreError("\n".join(told))


def _only_tolerated(name: str, pipeline: Pipeline) -> bool:
    """Whether all nodes that read a dataset make do without it."""
    readers = [node for node in pipeline.nodes if name in node.inputs]
    return all(TOLERANT in node.tags for node in readers)


def _is_there(dataset: AbstractDataset[Any, Any]) -> bool:
    inner = versioned_dataset(dataset)
    if inner is not None and _pinned_load(inner) is None:
        return newest_version(inner) is not None
    try:
        return dataset.exists() if _tells_existence(dataset) else True
    except DatasetError:
        return False


def pin(dataset: AbstractVersionedDataset[Any, Any], load: str, save: str) -> None:
    """Let a dataset load one version and save another."""
    cast("Any", dataset)._version = Version(load, save)


def versioned_dataset(dataset: AbstractDataset[Any, Any]) -> AbstractVersionedDataset[Any, Any] | None:
    """The dataset, or the one that a cache wraps, if it is versioned."""
    inner = getattr(dataset, "_dataset", dataset)
    is_versioned = isinstance(inner, AbstractVersionedDataset) and inner._version is not None  # pyright: ignore[reportPrivateUsage]
    return inner if is_versioned else None  # pyright: ignore[reportReturnType]


def whole_versions(dataset: AbstractVersionedDataset[Any, Any]) -> list[str]:
    """Versions with their provenance, newest first."""
    try:
        versions = dataset.list_versions(full_path=False)
    except VersionNotFoundError:
        return []
    return [version for version in versions if read_provenance(dataset, version) is not None]


def newest_version(dataset: AbstractVersionedDataset[Any, Any]) -> str | None:
    """The newest version that has its provenance."""
    try:
        versions = dataset.list_versions(full_path=False)
    except VersionNotFoundError:
        return None
    return next((v for v in versions if read_provenance(dataset, v) is not None), None)


def read_provenance(dataset: AbstractVersionedDataset[Any, Any], version: str) -> dict[str, Any] | None:
    """What was recorded of a version; None where nothing was.

    Raises
    ------
    StoreError
        If the record is damaged.
    """
    fs = cast("Any", dataset)._fs
    path = provenance_path(dataset, version)
    with storage_errors(path, "read"):
        if not fs.exists(path):
            return None
    try:
        content = json.loads(read_file(fs, path))
        if not isinstance(content, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{path}: the record of where this version came from is damaged ({error}). Remove the version, or"
            " load another one (--load-versions)."
        ) from error
    return cast("dict[str, Any]", content)


def provenance_path(dataset: AbstractVersionedDataset[Any, Any], version: str) -> str:
    """Where the record of a version is."""
    opened = cast("Any", dataset)
    return f"{get_filepath_str(opened._filepath / version, opened._protocol)}/{PROVENANCE}"


def artefact_path(dataset: AbstractVersionedDataset[Any, Any], version: str) -> str:
    """Where the file or folder of a version is."""
    opened = cast("Any", dataset)
    return get_filepath_str(opened._get_versioned_path(version), opened._protocol)


def read_record(name: str, dataset: AbstractDataset[Any, Any]) -> Record:
    """What an input is and what it came from: as recorded beside a version, else found out now.

    Raises
    ------
    StoreError
        If the version was made by a release that did not record it.
    """
    inner = versioned_dataset(dataset)
    if inner is None:
        return Record(name, find_origin(dataset))
    version = cast("str", inner.resolve_load_version())
    provenance = read_provenance(inner, version) or {}
    if "lineage" not in provenance:
        raise StoreError(
            f"{name}: version {version} does not say what it came from; it was made by an earlier release."
            " Run the pipelines that make it again (`kedro run` makes everything)."
        )
    return Record(name, provenance["origin"], provenance["lineage"], provenance["made_with"])


def find_origin(dataset: AbstractDataset[Any, Any]) -> Origin:
    """What a thing without versions is now: by its own word, else the SHA-256 of its file or folder."""
    identify = cast("Callable[[], Origin] | None", getattr(dataset, "identify", None))
    if identify is not None:
        return identify()
    filepath, fs = getattr(dataset, "_filepath", None), getattr(dataset, "_fs", None)
    if filepath is None or fs is None:
        return {}
    path = get_filepath_str(filepath, str(cast("Any", dataset)._protocol))
    if not fs.exists(path):
        return {"url": shown_path(dataset)}  # what may be absent, and is
    return {"url": shown_path(dataset), "sha256": digest_of(fs, path)}


def shown_path(dataset: AbstractDataset[Any, Any]) -> str:
    """Where a dataset lies, for messages."""
    return str(getattr(dataset, "_filepath", None) or dataset)


def _refuse_the_future(name: str, version: str | None) -> None:
    """Raise where a version claims to be made later than now: it would hide every one that follows."""
    if version is None:
        return
    try:
        made = datetime.strptime(version, "%Y-%m-%dT%H.%M.%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return  # a version that somebody named
    now = datetime.now(tz=UTC)
    if made > now + _CLOCKS_DIFFER:
        raise StoreError(
            f"{name}: version {version} is dated in the future (now it is {now:%Y-%m-%dT%H.%M}Z), so that it"
            " would be taken for the newest whatever is made after it. Correct this machine's clock; if"
            " another one's was wrong, remove the version or rename its folder. To read it as it is:"
            f" --load-versions={name}:{version}"
        )


def _pinned_load(dataset: AbstractVersionedDataset[Any, Any]) -> str | None:
    version = cast("Any", dataset)._version
    return None if version is None else version.load


def _tells_existence(dataset: AbstractDataset[Any, Any]) -> bool:
    return type(dataset)._exists is not AbstractDataset._exists  # pyright: ignore[reportPrivateUsage]
