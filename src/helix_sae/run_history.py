"""The runs that left something in a data root: what each read and made, how good it was, how much room it takes.

Everything is read from the ``provenance.json`` beside each version; there is no list of runs that could go
wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from helix_sae.errors import StoreError
from helix_sae.shards.maintenance import list_versions
from helix_sae.storage import open_filesystem, read_file
from helix_sae.versions import PROVENANCE

_SHARDED, _SUMMARY = ("activations", "sparse_codes"), "run_summary"


class Artefact(NamedTuple):
    """A version of a dataset.

    Attributes
    ----------
    name, version : str
        Of the dataset, as the catalog has it.
    folder : str
        Of the version.
    n_bytes : int
        Of its files; shards of activations and codes that versions share are not among them.
    provenance : dict
        What was recorded beside it.
    """

    name: str
    version: str
    folder: str
    n_bytes: int
    provenance: dict[str, Any]

    @property
    def needs(self) -> set[tuple[str, str]]:
        """Datasets and versions that it descends from."""
        lineage = cast("dict[str, dict[str, Any]]", self.provenance.get("lineage", {}))
        return {(name, str(origin["version"])) for name, origin in lineage.items() if origin.get("version")}


class Run(NamedTuple):
    """What one run left behind, by the name of its versions."""

    name: str
    artefacts: tuple[Artefact, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all its artefacts."""
        return sum(artefact.n_bytes for artefact in self.artefacts)

    @property
    def pipelines(self) -> list[str]:
        """The pipelines that it was of."""
        return [str(name) for name in self.artefacts[0].provenance.get("pipelines", [])]

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, nested ones by their path."""
        return dict(flat(self.artefacts[0].provenance.get("parameters", {})))

    @property
    def sequences(self) -> str | None:
        """Where the sequences were read that its results descend from."""
        for artefact in self.artefacts:
            origin = artefact.provenance.get("lineage", {}).get("raw_sequences", {})
            if origin.get("url"):
                return str(origin["url"])
        return None


def find_runs(root: str) -> list[Run]:
    """All runs below a data root, the newest last.

    Raises
    ------
    StoreError
        If there is nothing at ``root``.
    """
    fs, path = open_filesystem(root)
    if not fs.exists(path):
        raise StoreError(
            f"{root}: there is no such folder; name a data root (--data), e.g. data or helix-sae-my_utrs."
        )
    by_version: dict[str, list[Artefact]] = {}
    for artefact in _artefacts(fs, path):
        by_version.setdefault(artefact.version, []).append(artefact)
    return [Run(version, tuple(by_version[version])) for version in sorted(by_version)]


def run_named(runs: Sequence[Run], name: str) -> Run:
    """A run by its name, by the beginning of it, or ``latest``.

    Raises
    ------
    StoreError
        If there is none, or several begin so.
    """
    found = runs[-1:] if name == "latest" else [run for run in runs if run.name.startswith(name)]
    if len(found) != 1:
        several = "several begin so" if found else "there is none"
        known = ", ".join(run.name for run in (found or runs)) or "none"
        raise StoreError(f"No one run is called {name!r}: {several}. There are: {known}.")
    return found[0]


def figures_of_merit(run: Run, root: str) -> dict[str, Any]:
    """The numbers of a run's report that say how good it is, nested ones by their path; empty without a report."""
    fs, _ = open_filesystem(root)
    for artefact in run.artefacts:
        if artefact.name == _SUMMARY:
            return merits_of(json.loads(read_file(fs, f"{artefact.folder}/run_summary.json")))
    return {}


def merits_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report's summary that say how good a run is, nested ones by their path."""
    return {
        name: value
        for name, value in flat(summary)
        if isinstance(value, bool | int | float) and name.count(".") <= 2
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names whose values differ, with both of them; None where one lacks it."""
    names = dict.fromkeys([*one, *other])
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


class Removal(NamedTuple):
    """What removing a run removes, and what has to stay because later runs were made from it."""

    removed: tuple[Artefact, ...]
    kept: tuple[Artefact, ...]


def plan_removal(runs: Sequence[Run], run: Run) -> Removal:
    """Tell the versions of a run that no other run needs from those that one does."""
    needed = {need for other in runs if other.name != run.name for a in other.artefacts for need in a.needs}
    kept = tuple(a for a in run.artefacts if (a.name, a.version) in needed)
    return Removal(tuple(a for a in run.artefacts if a not in kept), kept)


def remove(removal: Removal, root: str) -> int:
    """Remove versions, and the shards of activations and codes that only these named.

    Returns
    -------
    int
        Bytes freed.
    """
    fs, _ = open_filesystem(root)
    freed = 0
    for artefact in removal.removed:
        store = artefact.folder.rpartition("/")[0]
        before = _shards(store) if artefact.name in _SHARDED else {}
        fs.rm(artefact.folder, recursive=True)
        freed += artefact.n_bytes
        if before:
            left = _shards(store)
            for file, size in before.items():
                if file not in left:
                    fs.rm(f"{store}/{file}")
                    freed += size
    return freed


def _shards(store: str) -> dict[str, int]:
    """Shards that the versions of a store name, and their sizes."""
    return {
        str(entry["file"]): int(entry["bytes"])
        for version in list_versions(store)
        for entry in version.manifest["shards"]
    }


def _artefacts(fs: Any, root: str) -> Iterator[Artefact]:
    for depth in ("*/*/*", "*/*/*/*"):
        for found in sorted(cast("list[str]", fs.glob(f"{root}/{depth}/{PROVENANCE}"))):
            folder = found.rpartition("/")[0]
            content = cast("dict[str, Any]", json.loads(read_file(fs, found)))
            files = cast("dict[str, dict[str, Any]]", fs.find(folder, detail=True))
            n_bytes = sum(int(info["size"] or 0) for info in files.values())
            yield Artefact(str(content["dataset"]), str(content["version"]), folder, n_bytes, content)


def flat(content: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings by their path; what else there is, lists among them, as it is."""
    if isinstance(content, Mapping):
        for key, value in cast("Mapping[str, Any]", content).items():
            name = str(key).removeprefix("params:")
            yield from flat(value, f"{path}.{name}" if path else name)
    else:
        yield path, content
