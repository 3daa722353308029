"""What the nodes that intervene share: the model with its autoencoders, the pairs, the options of every experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.causal.alignment import TokenPair
    from helix_sae.models.helix.finetuned import FineTunedModel
    from helix_sae.models.helix.loading import HelixHandle
    from helix_sae.models.helix.model import HelixModel
    from helix_sae.sae import SparseAutoencoder
else:
    # Too heavy to import before a node runs.
    TokenPair = FineTunedModel = HelixHandle = HelixModel = SparseAutoencoder = Any


class Setting(NamedTuple):
    """What every experiment of a run shares."""

    model: HelixModel | FineTunedModel
    saes: dict[str, SparseAutoencoder]
    pairs: list[TokenPair]


def prepare(
    handle: HelixHandle, saes: dict[str, SparseAutoencoder], pairs: pd.DataFrame, parameters: CausalParameters
) -> Setting:
    """Open the model, choose the sites of ``target_blocks``, tokenize and align the pairs.

    Raises
    ------
    ConfigurationError
        If a block of ``target_blocks`` has no autoencoder.
    """
    from helix_sae.causal.alignment import align_table

    model = open_for_reading(handle, parameters)
    wanted = parameters.target_blocks
    chosen = {site: sae for site, sae in saes.items() if wanted is None or model.layer_of(site) in wanted}
    missing = set(wanted or ()) - {model.layer_of(site) for site in chosen}
    if missing:
        raise ConfigurationError(
            f"There is no autoencoder for block {', '.join(map(str, sorted(missing)))}; those of this run are at "
            f"{', '.join(saes)}. Set causal_acdc.target_blocks, or extraction.sites and train again."
        )
    placed = {site: sae.to(model.device) for site, sae in chosen.items()}
    return Setting(model, placed, align_table(pairs, handle.codon_markers))


def open_for_reading(handle: HelixHandle, parameters: CausalParameters) -> HelixModel | FineTunedModel:
    """The model as the read-out reads it: a fine-tuned head takes more than the mean of the last states."""
    from helix_sae.models.helix.finetuned import FineTunedModel, load_fine_tuned_head
    from helix_sae.models.helix.loading import open_model

    model = open_model(handle)
    if parameters.probe.kind == "head" and load_fine_tuned_head(Path(handle.source)) is not None:
        return FineTunedModel(model)
    return model


def options(parameters: CausalParameters) -> dict[str, Any]:
    """Arguments that every experiment of a run has in common."""
    return {
        "direction": parameters.effects.direction,
        "positions": parameters.effects.positions,
        "token_budget": parameters.token_budget,
    }


def some_pairs(pairs: pd.DataFrame, split: str, limit: int, seed: int) -> np.ndarray:
    """Row numbers of pairs of one part whose difference is known and not zero, drawn at random up to the limit."""
    usable = (pairs["split"] == split) & ~pairs["is_sham"] & (pairs["difference"].fillna(0) != 0)
    rows = np.flatnonzero(usable.to_numpy())
    return np.sort(np.random.default_rng(seed).permutation(rows)[:limit])


def curve_pairs(pairs: pd.DataFrame, limit: int, seed: int) -> np.ndarray:
    """Row numbers of pairs of both parts: nodes are ranked on discovery ones and judged on held-out ones."""
    return np.sort(
        np.concatenate([some_pairs(pairs, split, limit, seed) for split in ("discovery", "validation")])
    )
