"""The node that sets the experiment up, and which of its pairs a part of the analysis takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.causal.read_out import Probe
    from helix_sae.causal.specification import Specification
    from helix_sae.models.contract import Model
    from helix_sae.models.registry import ModelHandle
    from helix_sae.sae import SparseAutoencoder
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Probe = Specification = Model = ModelHandle = SparseAutoencoder = Any


@dataclass(frozen=True)
class ModelAsRead:
    """A model by reference, as the read-out reads it.

    Attributes
    ----------
    handle : mapping
        Fields of the model's handle.
    through_head : bool
        Whether its own head reads it, which may take more than the mean of the last states.
    """

    handle: Mapping[str, Any]
    through_head: bool

    def open(self) -> Model:
        """The model, opened once in each process."""
        from helix_sae.models.registry import ModelHandle, open_model

        model = open_model(ModelHandle.model_validate(dict(self.handle)))
        return model.as_read_by_head() if self.through_head else model


def as_read(handle: ModelHandle, parameters: CausalParameters) -> ModelAsRead:
    """The model as the read-out of these parameters reads it."""
    return ModelAsRead(handle.model_dump(), through_head=parameters.probe.kind == "head")


def set_up(
    handle: ModelHandle,
    saes: dict[str, SparseAutoencoder],
    probe: Probe,
    pairs: pd.DataFrame,
    parameters: CausalParameters,
) -> Specification:
    """Choose the sites of ``target_blocks``, tokenize and align the pairs, say how they are patched.

    Raises
    ------
    ConfigurationError
        If a block of ``target_blocks`` has no autoencoder.
    AnalysisError
        If certified features are asked for and none is.
    """
    from helix_sae.causal.alignment import align_table
    from helix_sae.causal.specification import Specification, StoredAutoencoder
    from helix_sae.sae.restricted import certified_masks

    reference = as_read(handle, parameters)
    model, wanted = reference.open(), parameters.target_blocks
    chosen = {site: sae for site, sae in saes.items() if wanted is None or model.layer_of(site) in wanted}
    missing = set(wanted or ()) - {model.layer_of(site) for site in chosen}
    if missing:
        raise ConfigurationError(
            f"There is no autoencoder for block {', '.join(map(str, sorted(missing)))}; those of this run are"
            f" at {', '.join(saes)}. Set causal_acdc.target_blocks, or extraction.sites and train again."
        )
    spoken: dict[str, np.ndarray] = {}
    if parameters.certified_only:
        spoken = certified_masks({site: sae.stability for site, sae in chosen.items()})
    return Specification(
        model=reference,
        dictionaries={site: StoredAutoencoder.of(sae, spoken.get(site)) for site, sae in chosen.items()},
        read_out=probe,
        pairs=align_table(pairs, handle.codon_markers),
        direction=parameters.effects.direction,
        positions=parameters.effects.positions,
        token_budget=parameters.token_budget,
    )


def some_pairs(pairs: pd.DataFrame, split: str, limit: int, seed: int) -> np.ndarray:
    """Row numbers of pairs of one part whose difference is not zero, known or of edits, drawn at random up to the limit."""
    differs = (pairs["difference"].fillna(0) != 0) | (pairs["difference_kind"] == "unknown")
    usable = (pairs["split"] == split) & ~pairs["is_sham"] & differs
    rows = np.flatnonzero(usable.to_numpy())
    return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])


def curve_pairs(pairs: pd.DataFrame, limit: int, seed: int) -> np.ndarray:
    """Row numbers of pairs of both parts: nodes are ranked on discovery ones and judged on held-out ones."""
    return np.sort(
        np.concatenate([some_pairs(pairs, split, limit, seed) for split in ("discovery", "validation")])
    )
