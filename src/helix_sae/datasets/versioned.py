"""What all versioned datasets have in common: a version without its provenance is not there."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

from kedro.io.core import AbstractVersionedDataset

from helix_sae.versions import PROVENANCE

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class WholeVersionsDataset(AbstractVersionedDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A versioned dataset whose latest version is the newest one that a run has finished.

    A run writes ``provenance.json`` beside what it saved. Where there is a version that has it, those without
    are what runs were killed at, and are passed over; what was only ever saved by hand has none.
    """

    def _get_versions(self) -> list[str]:
        versions = super()._get_versions()
        fs = cast("Any", self)._fs
        finished = [path for path in versions if fs.exists(f"{path.rpartition('/')[0]}/{PROVENANCE}")]
        return finished or versions
