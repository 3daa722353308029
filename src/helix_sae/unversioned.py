"""What the catalog keeps without versions: how it was made is recorded in a hidden file beside it."""

from __future__ import annotations

import json
from typing import Any, cast

from kedro.io import AbstractDataset

from helix_sae.errors import StoreError
from helix_sae.lineage import identity
from helix_sae.storage import canonical_json, open_filesystem, read_file, write_file
from helix_sae.versions import PROVENANCE, find_origin, versioned_dataset

Dataset = AbstractDataset[Any, Any]


def is_unversioned(dataset: Dataset) -> bool:
    """Whether a dataset is kept, and has no versions."""
    has_place = getattr(dataset, "_filepath", None) is not None
    return has_place and not getattr(dataset, "_EPHEMERAL", False) and versioned_dataset(dataset) is None


def write_recipe(dataset: Dataset, recipe: str, provenance: dict[str, Any]) -> None:
    """Record how what was just saved was made, and what it is.

    Parameters
    ----------
    dataset : AbstractDataset
        Without versions.
    recipe : str
        See :func:`~helix_sae.lineage.recipe_of`.
    provenance : dict
        What else is to be recorded, as JSON values.
    """
    fs, path = _record_of(dataset)
    origin = {**find_origin(dataset), "recipe": recipe}
    write_file(fs, path, canonical_json({**provenance, "origin": origin}))


def is_made_by(dataset: Dataset, recipe: str) -> bool:
    """Whether what is there was made by a recipe, as recorded, and is what it was then.

    A record that is missing or damaged says no: it costs a run, where a wrong yes would cost a result.
    """
    fs, path = _record_of(dataset)
    try:
        recorded = json.loads(read_file(fs, path))["origin"]
        if not dataset.exists():
            return False
        return recorded["recipe"] == recipe and identity(recorded) == identity(find_origin(dataset))
    except (StoreError, ValueError, KeyError, TypeError):
        return False


def _record_of(dataset: Dataset) -> tuple[Any, str]:
    """File system and path of the record."""
    fs, path = getattr(dataset, "_fs", None), str(cast("Any", dataset)._filepath)
    if fs is None:
        fs, path = open_filesystem(path, getattr(dataset, "_storage_options", None))
    folder, _, name = path.rstrip("/").rpartition("/")
    return fs, f"{folder}/.{name}.{PROVENANCE}"


class Outdated(AbstractDataset[Any, Any]):
    """A dataset whose content was made in another way than the run would: not there until the run has saved it.

    Parameters
    ----------
    dataset : AbstractDataset
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self._is_made = dataset, False

    def load(self) -> Any:
        """Load what is there."""
        return self.dataset.load()

    def save(self, data: Any) -> None:
        """Save in its place."""
        self.dataset.save(data)
        self._is_made = True

    def _exists(self) -> bool:
        return self._is_made and self.dataset.exists()

    def _release(self) -> None:
        self.dataset.release()

    def _describe(self) -> dict[str, Any]:
        return {"dataset": repr(self.dataset)}
