"""Nodes of the extraction pipeline."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_sae.pipelines.extraction.parameters import ExtractionParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.models.contract import Model
    from helix_sae.models.registry import ModelHandle
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Activations = Model = ModelHandle = Any

LOGGER = logging.getLogger(__name__)


def extract(table: pd.DataFrame, handle: ModelHandle, parameters: ExtractionParameters) -> Activations:
    """Activations of every sequence, computed as they are read: once where they are stored.

    With ``mode: stream`` they are not stored, and each of the other nodes of the run computes them anew.
    """
    from helix_sae.models.registry import open_model

    model = open_model(handle)
    sites = parameters.sites or list(model.default_sites)
    model.check_sites(sites)
    kept = parameters.tokens_per_sequence
    if parameters.mode == "auto" and kept is None:
        kept = _sample(table, model, handle, sites, parameters)
    return computed(
        table,
        handle,
        sites,
        parameters,
        tokens_per_sequence=kept,
        keep=parameters.mode != "stream",
        width=model.hidden_size,
    )


def _sample(
    table: pd.DataFrame, model: Model, handle: ModelHandle, sites: list[str], parameters: ExtractionParameters
) -> int | None:
    """Tokens of each sequence to store, None for all; says before anything is computed what that takes."""
    from helix_sae.activations.plan import bytes_a_token, fitting_sample, token_counts

    counts = token_counts(table, handle.codon_markers)
    token_bytes = bytes_a_token(len(sites), model.hidden_size, parameters.dtype)
    kept = fitting_sample(counts, token_bytes)
    whole, n_tokens = int(counts.sum()), int(counts.sum() if kept is None else counts.clip(max=kept).sum())
    hours = whole / _tokens_a_second(table, handle, sites, parameters) / 3600 if kept is not None else None
    LOGGER.info(
        "%s tokens of %s sequences at %d sites take %.2f GB: %s",
        f"{whole:,}",
        f"{len(table):,}",
        len(sites),
        whole * token_bytes / 1e9,
        "all of them are stored."
        if hours is None
        else f"{kept:,} of each sequence ({n_tokens:,} in all, {n_tokens * token_bytes / 1e9:.2f} GB) are"
        " stored, and a second pass makes the codes of all. Each pass of the model takes about"
        f" {hours:.2g} hours at the rate measured here.",
    )
    return kept


def _tokens_a_second(
    table: pd.DataFrame, handle: ModelHandle, sites: list[str], parameters: ExtractionParameters
) -> float:
    """Rate of the model on the first sequences of the table, as many as fill a batch; run twice, the second time counts."""
    from helix_sae.models.extraction import extract_activations
    from helix_sae.mrna.tokens import tokenize_table

    lengths = table["sequence"].str.len().to_numpy()
    n = max(1, int((lengths.cumsum() <= parameters.token_budget).sum()))
    tokens = tokenize_table(table.iloc[:n], handle.codon_markers)
    seconds: list[float] = []
    for _ in range(2):  # the first time, libraries and kernels are got ready
        began = time.perf_counter()
        extract_activations(tokens, handle=handle, sites=tuple(sites), token_budget=parameters.token_budget)
        seconds.append(time.perf_counter() - began)
    return sum(t.ids.size for t in tokens) / seconds[-1]


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
    width: int | None = None,
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
        width=width,
    )
    return stream_activations(plan, keep=keep)
