"""Which tokens autoencoders are trained and judged on, in which order, and whether they are enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.sae import SaeConfig

TOKENS_PER_FEATURE = 5
"""Discovery tokens for each feature of a dictionary below which it is not trained."""

_IN_MEMORY = 2**29
"""Bytes of activations up to which they are read once and kept, in place of once a seed and epoch."""


def members(table: pd.DataFrame, activations: Activations, split: str) -> list[str]:
    """Ids of one part, in the order of the store."""
    part = set(table.loc[table["split"] == split, "sequence_id"])
    return [name for name in activations.sequence_ids if name in part]


def held_out(
    activations: Activations, table: pd.DataFrame, parameters: SaeTrainingParameters
) -> list[dict[str, np.ndarray]]:
    """Batches of the validation part, for held-out metrics."""
    batches = activations.batches(
        list(activations.sites),
        parameters.batch_size,
        parameters.seed,
        epochs=1,
        sequence_ids=members(table, activations, "validation"),
    )
    return list(islice(batches, max(1, parameters.holdout_tokens // parameters.batch_size)))


def orders(
    activations: Activations, discovery: Sequence[str], parameters: SaeTrainingParameters
) -> Callable[[int], Any]:
    """From a seed to its own order of the discovery tokens."""
    from helix_sae.sae import ArrayBatches

    sites, size = list(activations.sites), parameters.batch_size
    n_tokens = activations.n_tokens_of(discovery)
    epochs = parameters.n_epochs(n_tokens)
    n_bytes = 4 * n_tokens * sum(activations.widths[site] for site in sites)
    if not activations.source.is_stored or n_bytes > _IN_MEMORY:
        return lambda seed: activations.batches(sites, size, seed, epochs=epochs, sequence_ids=discovery)
    whole = activations.batches(
        sites, n_tokens, parameters.seed, sequence_ids=discovery, buffer_rows=n_tokens
    )
    rows = next(iter(whole))
    return lambda seed: ArrayBatches(rows, size, seed, epochs)


def check_enough(
    n_tokens: int, widths: Mapping[str, int], configs: Mapping[str, SaeConfig], where: str
) -> None:
    """Raise a DataError where there are too few tokens for a dictionary of the wanted size; ``where`` names the configurations."""
    for name, config in configs.items():
        for site, width in widths.items():
            d_sae = config.resolve(width, f"site {site}").at_the_start.d_sae
            if n_tokens < TOKENS_PER_FEATURE * d_sae:
                raise DataError(
                    f"The discovery part has {n_tokens:,} tokens; a dictionary of {d_sae:,} features at"
                    f" {site} ({where}.{name}) needs at least {TOKENS_PER_FEATURE * d_sae:,}. Give more"
                    f" sequences, or lower {where}.{name}.expansion_factor."
                )
