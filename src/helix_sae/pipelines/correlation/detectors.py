"""What an SAE feature has to beat as a detector of a concept; every kind goes through the same matching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from helix_sae.mrna.tokens import CodonMarkers, TokenizedSequence
from helix_sae.pipelines.correlation.nucleotides import Nucleotides
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.models.contract import Model
    from helix_sae.models.registry import ModelHandle
else:
    # Too heavy to import for their names alone.
    Activations = Model = ModelHandle = Any

Codes = dict[str, Any]
"""By site: a CSR matrix (n_nucleotides, n_detectors) of activations >= 0."""


def unit_baselines(
    activations: Activations, chosen: Nucleotides, discovery: Bool[np.ndarray, " n_nucleotides"]
) -> Iterator[tuple[str, Codes]]:
    """Raw neurons and principal components of every site: the same activations without an autoencoder.

    ``activations`` are of every token of the chosen sequences, perhaps of others too.
    """
    from helix_sae.statistics.concept_matching import principal_components, signed_halves

    first = np.repeat(activations.first_rows(chosen.sequence_id), np.diff(chosen.offsets))
    values = activations.rows_at(activations.sites, first + chosen.token)
    yield "neurons", {site: signed_halves(x, discovery) for site, x in values.items()}
    yield (
        "pca",
        {
            site: signed_halves(principal_components(x, discovery, x.shape[1]), discovery)
            for site, x in values.items()
        },
    )


def reader_baselines(
    table: pd.DataFrame, chosen: Nucleotides, kmer_sizes: list[int], codon_markers: CodonMarkers
) -> Iterator[tuple[str, Codes]]:
    """What can be read off the input without a model: k-mers, position, and the codon markers where there are any.

    The k-mers are those of the tokens, markers included: the model is given ``EUGA`` for a stop codon in
    frame.
    """
    from helix_sae.mrna.tokens import VOCABULARY, tokenize_table
    from helix_sae.statistics.concept_matching import (
        kmer_detectors,
        marker_detectors,
        position_detectors,
    )

    tokens = tokenize_table(table.set_index("sequence_id").loc[chosen.sequence_id], codon_markers)
    first = np.concatenate([[0], np.cumsum([t.ids.size for t in tokens])])
    kept = _token_rows(tokens, first, chosen)
    alphabet = "ACGUE" if any((~t.is_nucleotide).any() for t in tokens) else "ACGU"
    number = np.full(max(VOCABULARY.values()) + 1, -1, dtype=np.int64)
    number[[VOCABULARY[letter] for letter in alphabet]] = np.arange(len(alphabet))
    letters = number[np.concatenate([t.ids for t in tokens])]
    for k in kmer_sizes:
        yield f"{k}-mers", {"tokens": kmer_detectors(letters, first, k, alphabet)[0][kept]}
    yield "position", {"tokens": position_detectors(chosen.nucleotide)[0]}
    if chosen.n_markers.any():
        yield "markers", {"tokens": marker_detectors(chosen.since_marker, chosen.n_markers)[0]}


def untrained_baseline(
    handle: ModelHandle,
    sites: list[str],
    table: pd.DataFrame,
    chosen: Nucleotides,
    discovery: Bool[np.ndarray, " n_nucleotides"],
    training: SaeTrainingParameters,
    seed: int,
) -> Codes:
    """Features of an SAE of the same configuration on the same architecture with random weights.

    It is trained on the chosen discovery nucleotides, by the same rule of length.
    """
    from helix_sae.models.registry import open_model, resolve_device
    from helix_sae.sae import ArrayBatches, encode_stream, train_saes

    values = _untrained_activations(open_model(handle).untrained(seed), handle, sites, table, chosen)
    learnt = {site: x[discovery] for site, x in values.items()}
    n_tokens = int(discovery.sum())
    batches = ArrayBatches(learnt, training.batch_size, seed, training.n_epochs(n_tokens))
    saes = train_saes(
        batches,
        {training.chosen: training.saes[training.chosen]},
        n_steps=training.n_steps(n_tokens),
        seed=seed,
        calibration_tokens=training.calibration_tokens,
        device=resolve_device(training.device),
    ).by_site()

    def sequences(site: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for i, name in enumerate(chosen.sequence_id):
            rows = values[site][chosen.offsets[i] : chosen.offsets[i + 1]]
            yield name, rows, np.ones(len(rows), dtype=bool)

    return {site: encode_stream(sae, sequences(site), site=site).codes for site, sae in saes.items()}


def _untrained_activations(
    model: Model, handle: ModelHandle, sites: list[str], table: pd.DataFrame, chosen: Nucleotides
) -> dict[str, Float[np.ndarray, "n_nucleotides width"]]:
    """Activations of the chosen nucleotides."""
    from helix_sae.models.extraction import activations_of
    from helix_sae.mrna.tokens import tokenize_table

    tokens = tokenize_table(table.set_index("sequence_id").loc[chosen.sequence_id], handle.codon_markers)
    first = np.concatenate([[0], np.cumsum([t.ids.size for t in tokens])])
    kept = _token_rows(tokens, first, chosen)
    return {site: x[kept] for site, x in activations_of(model, tokens, sites=sites).items()}


def _token_rows(
    tokens: list[TokenizedSequence], first: Int[np.ndarray, " n_sequences_plus_1"], chosen: Nucleotides
) -> Int[np.ndarray, " n_nucleotides"]:
    """Rows of the chosen nucleotides where the tokens of the chosen sequences are laid end to end."""
    rows = [
        start + np.flatnonzero(t.is_nucleotide)[chosen.nucleotide[begin:end]]
        for t, start, begin, end in zip(tokens, first, chosen.offsets[:-1], chosen.offsets[1:], strict=False)
    ]
    return np.concatenate(rows)
