"""Nodes of the extraction pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_sae.pipelines.extraction.parameters import ExtractionParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.models.registry import ModelHandle
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Activations = ModelHandle = Any


def extract(table: pd.DataFrame, handle: ModelHandle, parameters: ExtractionParameters) -> Activations:
    """Activations of every sequence, computed as they are read: once where they are stored.

    With ``mode: stream`` they are not stored, and each of the other nodes of the run computes them anew.
    """
    from helix_sae.models.registry import open_model

    model = open_model(handle)
    sites = parameters.sites or list(model.default_sites)
    model.check_sites(sites)
    return computed(
        table,
        handle,
        sites,
        parameters,
        tokens_per_sequence=parameters.tokens_per_sequence,
        keep=parameters.mode == "store",
    )


def whole(
    activations: Activations, table: pd.DataFrame, handle: ModelHandle, parameters: ExtractionParameters
) -> Activations:
    """Activations of every token: those given, or computed when they are read where these are a sample of the tokens."""
    activations.check_model(handle.fingerprint)
    if activations.are_whole:
        return activations
    return whole_of(activations, table, activations.sequence_ids, handle, parameters)


def whole_of(
    activations: Activations,
    table: pd.DataFrame,
    sequence_ids: Sequence[str],
    handle: ModelHandle,
    parameters: ExtractionParameters,
) -> Activations:
    """Activations of every token of some sequences, computed when they are read, at the sites of those given."""
    activations.check_model(handle.fingerprint)
    kept = table.set_index("sequence_id", drop=False).loc[list(sequence_ids)].reset_index(drop=True)
    return computed(kept, handle, list(activations.sites), parameters, tokens_per_sequence=None, keep=False)


def computed(
    table: pd.DataFrame,
    handle: ModelHandle,
    sites: list[str],
    parameters: ExtractionParameters,
    *,
    tokens_per_sequence: int | None,
    keep: bool,
) -> Activations:
    """Activations of a model on the sequences of a table, computed when they are read."""
    from helix_sae.activations import plan_extraction, stream_activations
    from helix_sae.models.extraction import extract_activations

    plan = plan_extraction(
        table,
        fingerprint=handle.fingerprint,
        sites=sites,
        compute=partial(
            extract_activations, handle=handle, sites=tuple(sites), token_budget=parameters.token_budget
        ),
        codon_markers=handle.codon_markers,
        dtype=parameters.dtype,
        precision=handle.dtype,
        shard_tokens=parameters.shard_tokens,
        tokens_per_sequence=tokens_per_sequence,
    )
    return stream_activations(plan, keep=keep)
