"""Plain copies of the last report with what belongs to it, where a person looks for them.

Versions are kept as ``<data_root>/08_reporting/<name>/<version>/<name>``. ``<data_root>/latest`` holds the
newest as plain files: ``report.html``, ``atlas/``, ``summary.json``, ``summary.txt``,
``figures/*``, ``tables/*``. The folder is replaced as a whole whenever a report was made.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol, DatasetError
from kedro.io.core import get_filepath_str
from kedro.pipeline import Pipeline

from helix_sae.storage import MANIFEST, is_local, read_file, replace_folder, working_folder, write_file
from helix_sae.versions import PROVENANCE, versioned_dataset

LOGGER = logging.getLogger(__name__)

REPORT = "run_report"
_PLACES = {
    REPORT: "report.html",
    "run_summary": "summary.json",
    "run_summary_text": "summary.txt",
}
_WITHIN = {"feature_codes": ("all_sites.h5ad", "features.h5ad")}
"""Of datasets that are folders: the file in it, and its place."""

_WHOLE = {"feature_atlas": "atlas"}
"""Datasets that are folders and are copied whole, and their places."""

_FOLDERS = {".png": "figures", ".csv": "tables", ".json": "tables"}
_LAYER = "08_reporting"


class Copy(NamedTuple):
    """A file of a version and its place below ``latest``."""

    name: str
    fs: Any
    source: str
    place: str


class LatestHooks:
    """After a run that made a report, ``latest`` is made anew."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Copy the report of this run, and all that it belongs together with."""
        if REPORT not in pipeline.all_outputs():
            return
        pinned = {name: version for name in pipeline.datasets() if (version := _version(catalog, name))}
        copies = list(_copies(catalog, pinned))
        report = next((copy for copy in copies if copy.name == REPORT), None)
        if report is None:
            return
        # <root>/08_reporting/run_report.html/<version>/run_report.html
        target = str(PurePosixPath(report.source).parents[3] / "latest")
        publish_latest(copies, report.fs, target)
        place = target if is_local(report.fs) else report.fs.unstrip_protocol(target)
        LOGGER.info("The report, the atlas, figures and tables of this run: %s", place)


def publish_latest(copies: list[Copy], fs: Any, target: str) -> None:
    """Replace the folder ``target`` by copies of these files.

    Raises
    ------
    StoreError
        If a file cannot be read or written.
    """
    with working_folder(target if is_local(fs) else None) as folder:
        for copy in copies:
            path = folder / copy.place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read_file(copy.fs, copy.source))
        if is_local(fs):
            replace_folder(folder, target)
            return
        # Object stores replace no folder as a whole: what is no longer there goes after the new was written.
        new = {
            f"{target}/{path.relative_to(folder).as_posix()}": path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        for place, path in new.items():
            write_file(fs, place, path.read_bytes())
        for old in set(fs.find(target)) - new.keys():
            fs.rm_file(old)


def _copies(catalog: CatalogProtocol[Any, Any], pinned: Mapping[str, str]) -> Iterator[Copy]:
    """Files of the reporting layer that are of this run, or made from the same versions as what it read."""
    for name in sorted({*catalog, *pinned}):
        dataset = versioned_dataset(catalog[name]) if name in catalog else None
        if dataset is None:
            continue
        inner = cast("Any", dataset)
        path = PurePosixPath(str(inner._filepath))
        within, place = _WITHIN.get(name, ("", _WHOLE.get(name) or _PLACES.get(name)))
        place = place or (f"{_FOLDERS[path.suffix]}/{path.name}" if path.suffix in _FOLDERS else None)
        version = pinned.get(name) or _version(catalog, name)
        if _LAYER not in path.parts or place is None or version is None:
            continue
        source = get_filepath_str(path / version / path.name / within, inner._protocol)
        if inner._fs.exists(source) and (name in pinned or _belongs(inner._fs, source, pinned)):
            files = inner._fs.find(source) if name in _WHOLE else [source]
            for file in files:
                within = file.removeprefix(source)
                if within != f"/{MANIFEST}":
                    yield Copy(name, inner._fs, file, f"{place}{within}")


def _belongs(fs: Any, source: str, pinned: Mapping[str, str]) -> bool:
    """Whether a version was made from the versions that the run read, as far as both name the same things."""
    provenance = f"{source.rpartition('/')[0]}/{PROVENANCE}"
    if not fs.exists(provenance):
        return False
    inputs = cast("dict[str, Any]", json.loads(read_file(fs, provenance)).get("inputs", {}))
    shared = [name for name in inputs if name in pinned]
    return bool(shared) and all(_of(inputs[name]) == pinned[name] for name in shared)


def _of(recorded: Any) -> Any:
    """Version in a record of an input, which may hold more than that."""
    return cast("dict[str, Any]", recorded).get("version") if isinstance(recorded, dict) else recorded


def _version(catalog: CatalogProtocol[Any, Any], name: str) -> str | None:
    dataset = versioned_dataset(catalog[name]) if name in catalog else None
    try:
        return None if dataset is None else dataset.resolve_load_version()
    except (DatasetError, OSError):
        return None
