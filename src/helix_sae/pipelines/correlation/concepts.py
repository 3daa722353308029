"""Nodes that match features, and their baselines, with nucleotide-level concepts."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.correlation.parameters import CorrelationParameters

if TYPE_CHECKING:
    from helix_sae.datasets.activations import ActivationStore
    from helix_sae.mrna.annotations import NucleotideAnnotations
    from helix_sae.sae import TokenCodes
    from helix_sae.statistics.concept_matching import ConceptTables
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    ActivationStore = NucleotideAnnotations = TokenCodes = ConceptTables = Any

LOGGER = logging.getLogger(__name__)


class _Nucleotides(NamedTuple):
    """The nucleotides that are matched: rows of the store and of the annotations that belong together."""

    sequence_id: list[str]
    offsets: Int[np.ndarray, " n_sequences_plus_1"]
    token_rows: Int[np.ndarray, " n_nucleotides"]
    nucleotide: Int[np.ndarray, " n_nucleotides"]
    annotation_rows: Int[np.ndarray, " n_nucleotides"]
    annotation_sequences: Int[np.ndarray, " n_sequences"]


def match_features(
    sparse_codes: dict[str, TokenCodes],
    activations: ActivationStore,
    annotations: NucleotideAnnotations,
    table: pd.DataFrame,
    parameters: CorrelationParameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Match the features of every site, and the baselines, with every concept.

    Returns
    -------
    concept_matches : DataFrame
        The leading features of each concept and site.
    concept_baselines : DataFrame
        The best detector of each concept by kind: SAE features, raw neurons, principal components, k-mers.
    concept_warnings : DataFrame
        Concepts that were left out, with the reason.
    """
    from helix_sae.statistics.concept_matching import compare_with_baselines

    chosen = _choose(activations, annotations, parameters.concepts.max_nucleotides)
    split = table.set_index("sequence_id")["split"].loc[chosen.sequence_id].to_numpy(dtype=object)
    detectors: dict[str, dict[str, Any]] = {
        "sae": {site: codes.codes[chosen.token_rows] for site, codes in sparse_codes.items()},
        **_site_baselines(activations, chosen, split),
        **_kmers(table, chosen, parameters.concepts.kmer_sizes),
    }
    matched = {
        kind: _match(codes, annotations, chosen, split, parameters) for kind, codes in detectors.items()
    }
    baselines = compare_with_baselines(matched)
    best = baselines.pivot_table(index="concept", columns="kind", values="f1")
    LOGGER.info("best F1 on validation clusters:\n%s", best.to_string(float_format=lambda x: f"{x:.2f}"))
    return matched["sae"].matches, baselines, matched["sae"].warnings


def _choose(activations: ActivationStore, annotations: NucleotideAnnotations, limit: int) -> _Nucleotides:
    """Whole sequences in the order of a hash of their ids, up to the limit; then back in the store's order."""
    rows = activations.all_rows()
    stored = np.asarray(activations.offsets)
    number = {name: i for i, name in enumerate(annotations.sequence_id)}
    ids = list(activations.sequence_ids)
    by_hash = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    taken, total = [], 0
    for i in by_hash:
        if total >= limit:
            break
        taken.append(i)
        total += int(rows.is_nucleotide[stored[i] : stored[i + 1]].sum())
    taken.sort()
    token_rows = [stored[i] + np.flatnonzero(rows.is_nucleotide[stored[i] : stored[i + 1]]) for i in taken]
    sequences = np.array([number[ids[i]] for i in taken], dtype=np.int64)
    first = np.asarray(annotations.offsets)[sequences]
    nucleotide = [rows.nucleotide[at].astype(np.int64) for at in token_rows]
    annotation_rows = [start + at for start, at in zip(first, nucleotide, strict=True)]
    return _Nucleotides(
        [ids[i] for i in taken],
        np.concatenate([[0], np.cumsum([len(at) for at in token_rows])]),
        np.concatenate(token_rows),
        np.concatenate(nucleotide),
        np.concatenate(annotation_rows),
        sequences,
    )


def _match(
    codes: dict[str, Any],
    annotations: NucleotideAnnotations,
    chosen: _Nucleotides,
    split: np.ndarray,
    parameters: CorrelationParameters,
) -> ConceptTables:
    """Match, for each group of concepts, on the sequences in which these concepts can be told."""
    from helix_sae.statistics.concept_matching import ConceptTables, match_concepts, prepare_concepts

    known = annotations.known[chosen.annotation_sequences]
    labels = annotations.labels[chosen.annotation_rows]
    parts: list[ConceptTables] = []
    for pattern in np.unique(known, axis=1).T:
        columns = np.flatnonzero((known == pattern[:, None]).all(axis=0))
        concepts = prepare_concepts(
            labels[:, columns],
            [annotations.concepts[c] for c in columns],
            [annotations.recall[c] == "instance" for c in columns],
            chosen.offsets,
        )
        try:
            parts.append(
                match_concepts(
                    codes,
                    concepts,
                    np.where(pattern, split, "not known"),
                    n_shifts=parameters.concepts.n_shifts,
                    min_positive=parameters.concepts.min_positive,
                    seed=parameters.seed,
                )
            )
        except AnalysisError as error:
            LOGGER.warning("concepts %s not matched: %s", ", ".join(concepts.names), error)
    if not parts:
        raise AnalysisError(
            "No concept could be matched: the sequences carry no coding regions and no motifs."
        )
    return ConceptTables(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)))


def _site_baselines(
    activations: ActivationStore, chosen: _Nucleotides, split: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Raw neurons and principal components of every site, as detectors."""
    from helix_sae.statistics.concept_matching import principal_components, signed_halves

    inside = np.repeat(split == "discovery", np.diff(chosen.offsets))
    neurons: dict[str, Any] = {}
    components: dict[str, Any] = {}
    for site in activations.sites:
        values = _dense_rows(activations, site, chosen.token_rows)
        neurons[site] = signed_halves(values, inside)
        components[site] = signed_halves(principal_components(values, inside, values.shape[1]), inside)
    return {"neurons": neurons, "pca": components}


def _dense_rows(
    activations: ActivationStore, site: str, token_rows: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n width"]:
    """Activations at some rows of the store, shard by shard."""
    out: list[np.ndarray] = []
    start = 0
    for shard in activations.iter_shards([site]):
        values = shard.activations[site]
        at = token_rows[(token_rows >= start) & (token_rows < start + len(values))]
        out.append(np.asarray(values[at - start]))
        start += len(values)
    return np.concatenate(out)


def _kmers(table: pd.DataFrame, chosen: _Nucleotides, sizes: list[int]) -> dict[str, dict[str, Any]]:
    """Detectors of single nucleotides and k-mers: what needs no model."""
    from helix_sae.statistics.concept_matching import kmer_detectors

    sequences = table.set_index("sequence_id")["sequence"].loc[chosen.sequence_id]
    letters = np.frombuffer("".join(sequences).encode("ascii"), dtype=np.uint8)
    whole = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    number = np.full(256, -1, dtype=np.int64)
    number[np.frombuffer(b"ACGU", dtype=np.uint8)] = np.arange(4)
    sequence = np.repeat(np.arange(len(chosen.sequence_id)), np.diff(chosen.offsets))
    kept = whole[sequence] + chosen.nucleotide
    return {f"{k}-mers": {"sequence": kmer_detectors(number[letters], whole, k)[0][kept]} for k in sizes}
