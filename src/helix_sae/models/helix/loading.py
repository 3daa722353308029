"""Helix-mRNA by a path, a hub id, or an object of helical's that the caller has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from helix_sae.errors import ModelError
from helix_sae.models.helix.model import HelixModel
from helix_sae.models.registry import handle_for, open_model

HUB_ID = "helical-ai/Helix-mRNA"
"""The released model."""


def load_helix(
    path_or_hub_id: str | Path = HUB_ID,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
) -> HelixModel:
    """Load a mended Helix-mRNA.

    Parameters
    ----------
    path_or_hub_id : str or Path
        A directory in Hugging Face layout, or a hub id.
    device, dtype : str
        See :class:`~helix_sae.models.registry.ModelHandle`.
    revision : str, optional
        Commit or tag of a hub id.

    Raises
    ------
    ModelError
        If it cannot be found or loaded.
    """
    handle = handle_for(path_or_hub_id, kind="helix_mrna", device=device, dtype=dtype, revision=revision)
    return cast("HelixModel", open_model(handle))


def from_helical(helix_mrna: Any) -> HelixModel:
    """Wrap (and mend, in place) a helical ``HelixmRNA`` or ``HelixmRNAFineTuningModel`` that the caller has made.

    Raises
    ------
    ModelError
        If the object is not one.
    """
    found = HelixModel.adopt(helix_mrna)
    if found is None:
        raise ModelError(
            f"{type(helix_mrna).__name__} is not a helical HelixmRNA model: it has no .model of helical's"
            " network."
        )
    return found
