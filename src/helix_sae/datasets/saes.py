"""Sparse autoencoders by site, each in a folder that SAELens reads too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from kedro_datasets._typing import JSONPreview

from helix_sae.datasets.directory import DirectoryDataset
from helix_sae.errors import StoreError
from helix_sae.storage import canonical_json, inside

if TYPE_CHECKING:
    from helix_sae.sae import SparseAutoencoder

_SITES = "sites.json"
_SITE_NAME = re.compile(r"\w[\w.\-]*")


class SaeCheckpointsDataset(
    DirectoryDataset["Mapping[str, SparseAutoencoder]", "dict[str, SparseAutoencoder]"]
):
    """Autoencoders by site: ``<site>/cfg.json`` and ``<site>/sae_weights.safetensors``, and our metadata beside.

    Parameters are those of :class:`~helix_sae.datasets.directory.DirectoryDataset`, and

    optional : bool
        Whether a folder that is not there is read as no autoencoders.

    Examples
    --------
    ::

        sae_checkpoints:
          type: helix_sae.datasets.saes.SaeCheckpointsDataset
          filepath: data/06_models/sae_checkpoints
          versioned: true
    """

    format_name: ClassVar[str] = "helix-sae-checkpoints/1"

    def __init__(self, *, optional: bool = False, **place: Any) -> None:
        super().__init__(**place)
        self._optional = optional

    def load(self) -> dict[str, SparseAutoencoder]:
        """Read a version; no autoencoders where there is none and that is allowed."""
        if self._optional and not super()._exists():
            return {}
        return super().load()

    def _exists(self) -> bool:
        return self._optional or super()._exists()

    def _write(self, data: Mapping[str, SparseAutoencoder], folder: Path) -> None:
        from helix_sae.sae import save_sae  # noqa: PLC0415 - slow to import, and catalogs are read by every command

        if not data:
            raise StoreError("There is no autoencoder to save.")
        for site, sae in data.items():
            if not _SITE_NAME.fullmatch(site):
                raise StoreError(f"Site {site!r} cannot be the name of a folder.")
            save_sae(sae, folder / site, {"site": site})
        (folder / _SITES).write_bytes(canonical_json(list(data)))

    def _read(self, folder: Path) -> dict[str, SparseAutoencoder]:
        from helix_sae.sae import load_sae  # noqa: PLC0415

        sites = cast("list[str]", json.loads((folder / _SITES).read_bytes()))
        return {site: load_sae(inside(str(folder), site, f"{folder}/{_SITES}")) for site in sites}

    def preview(self) -> JSONPreview:
        """Return the configuration of each site."""
        configs = {site: sae.config.model_dump(mode="json") for site, sae in self.load().items()}
        return JSONPreview(json.dumps(configs))
