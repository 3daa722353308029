"""The Kedro dataset over the store of activations."""

from __future__ import annotations

from typing import ClassVar

from helix_sae.activations import Activations, open_activations, save_activations
from helix_sae.activations.shards import FORMAT
from helix_sae.datasets.shards import ShardsDataset


class ActivationsDataset(ShardsDataset[Activations, Activations]):
    """Activations of a model: stored as they are computed; those not to be kept are handed on within the run.

    Parameters are those of :class:`~helix_sae.datasets.shards.ShardsDataset`.

    Examples
    --------
    ::

        activations:
          type: helix_sae.datasets.activations.ActivationsDataset
          filepath: data/04_feature/activations
          versioned: true
          verify: full
    """

    format_name: ClassVar[str] = FORMAT

    def _open(self, folder: str) -> Activations:
        return open_activations(self._url, folder, self._storage_options, self._verify)

    def _store(self, data: Activations, folder: str) -> None:
        save_activations(data, self._url, folder, self._storage_options)
