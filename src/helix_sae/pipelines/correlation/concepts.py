"""Node that matches features, and their baselines, with nucleotide-level concepts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.correlation import detectors
from helix_sae.pipelines.correlation.nodes import asked_for, with_certified
from helix_sae.pipelines.correlation.nucleotides import (
    Nucleotides,
    choose_nucleotides,
    concepts_of,
    regions_of,
)
from helix_sae.pipelines.correlation.parameters import CorrelationParameters
from helix_sae.pipelines.extraction.nodes import whole_of
from helix_sae.pipelines.extraction.parameters import ExtractionParameters
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters

if TYPE_CHECKING:
    from anndata import AnnData

    from helix_sae.activations import Activations
    from helix_sae.models.registry import ModelHandle
    from helix_sae.mrna.annotations import NucleotideAnnotations
    from helix_sae.sae.codes import SiteCodes
    from helix_sae.statistics.concept_matching import ConceptTables
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    AnnData = Activations = ModelHandle = NucleotideAnnotations = SiteCodes = ConceptTables = Any

LOGGER = logging.getLogger(__name__)

SAE = "sae"


def match_features(
    sparse_codes: Mapping[str, SiteCodes],
    activations: Activations,
    annotations: NucleotideAnnotations,
    table: pd.DataFrame,
    handle: ModelHandle,
    parameters: CorrelationParameters,
    training: SaeTrainingParameters,
    sequence_codes: dict[str, AnnData],
    extraction: ExtractionParameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Match the features of every site, and the baselines, with every concept.

    Returns
    -------
    concept_matches : DataFrame
        The leading features of each concept and site.
    concept_baselines : DataFrame
        The best detector of each concept by kind: SAE features, raw neurons, principal components, SAE
        features of the same architecture with random weights, and what can be read off the input (k-mers,
        position, codon markers); and whether it passes, see
        :func:`~helix_sae.statistics.concept_matching.judge_detectors`.
    concept_warnings : DataFrame
        Concepts that were left out, with the reason.
    """
    from helix_sae.statistics.concept_matching import compare_with_baselines, judge_detectors

    some = next(iter(sparse_codes.values()))
    chosen = choose_nucleotides(some, annotations, parameters.concepts.max_nucleotides)
    split = table.set_index("sequence_id")["split"].loc[chosen.sequence_id].to_numpy(dtype=object)

    def kinds() -> Iterator[tuple[str, detectors.Codes]]:
        """One kind of detector after the other: no more than one is held at a time."""
        discovery = np.repeat(split == "discovery", np.diff(chosen.offsets))
        features = {site: codes.at(chosen.token_rows) for site, codes in sparse_codes.items()}
        yield SAE, asked_for(features, sequence_codes, parameters)
        if activations.are_whole and activations.source.is_stored:
            units = activations
        else:
            units = whole_of(activations, table, chosen.sequence_id, handle, extraction)
        yield from detectors.unit_baselines(units, chosen, discovery)
        if parameters.concepts.random_model:
            sites = list(activations.sites)
            yield (
                "random_model",
                detectors.untrained_baseline(
                    handle, sites, table, chosen, discovery, training, parameters.seed
                ),
            )
        for kind, codes in detectors.reader_baselines(
            table, chosen, parameters.concepts.kmer_sizes, handle.codon_markers
        ):
            readers.append(kind)
            yield kind, codes

    readers: list[str] = []
    matched = {
        kind: _match(codes, annotations, chosen, split, parameters, best_only=kind != SAE)
        for kind, codes in kinds()
    }
    baselines = judge_detectors(compare_with_baselines(matched), readers, alpha=parameters.alpha)
    best = baselines.pivot_table(index="concept", columns="kind", values="f1", sort=False)
    LOGGER.info("best F1 on validation clusters:\n%s", best.to_string(float_format=lambda x: f"{x:.2f}"))
    return with_certified(matched[SAE].matches, sequence_codes), baselines, matched[SAE].warnings


def _match(
    codes: detectors.Codes,
    annotations: NucleotideAnnotations,
    chosen: Nucleotides,
    split: np.ndarray,
    parameters: CorrelationParameters,
    best_only: bool,
) -> ConceptTables:
    """Match, for each group of concepts, on the sequences in which these concepts can be told."""
    from helix_sae.statistics.concept_matching import ConceptTables, match_concepts

    known = annotations.known[chosen.annotation_sequences]
    parts: list[ConceptTables] = []
    unmatched: list[tuple[str, str, str]] = []
    for pattern in np.unique(known, axis=1).T:
        columns = np.flatnonzero((known == pattern[:, None]).all(axis=0))
        try:
            parts.append(
                match_concepts(
                    codes,
                    concepts_of(annotations, chosen, columns),
                    np.where(pattern, split, "not known"),
                    regions=regions_of(annotations, chosen),
                    best_only=best_only,
                    n_shifts=parameters.concepts.n_shifts,
                    min_positive=parameters.concepts.min_positive,
                    seed=parameters.seed,
                )
            )
        except AnalysisError as error:
            unmatched += [(annotations.concepts[c], "not_matched", str(error)) for c in columns]
    if not parts:
        raise AnalysisError(
            "No concept could be matched: the sequences carry no coding regions and no motifs."
        )
    matches, best, warnings = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    left_out = pd.DataFrame(unmatched, columns=warnings.columns)
    return ConceptTables(matches, best, pd.concat([warnings, left_out], ignore_index=True))
