"""Node that asks which feature carries which cause."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.causal.effects import Effects
    from helix_sae.causal.specification import Specification
    from helix_sae.models.registry import ModelHandle
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Effects = Specification = ModelHandle = Any

LOGGER = logging.getLogger(__name__)


def find_causes(
    experiment: Specification,
    handle: ModelHandle,
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    exact: Effects,
    stability: pd.DataFrame,
    parameters: CausalParameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Screen features by kind of edit on discovery pairs, test them for every kind on edits of validation families.

    Returns
    -------
    cause_matrix : DataFrame
        One row a (feature, cause), with the stability of the feature.
    cause_summary : DataFrame
        One row a cause.
    cause_contrasts : DataFrame
        One row an edit: what the matrix is tested on, so that causes can be permuted.
    """
    from helix_sae.causal.alignment import align_table
    from helix_sae.causal.causes import (
        cause_matrix,
        cause_summary,
        contrast_table,
        contrasts,
        families_enough,
        screen_by_cause,
    )
    from helix_sae.causal.effects import stamp
    from helix_sae.sae.stability import join_certified

    wanted = parameters.causes
    by_kind = _named_by_kind(pairs, parameters)
    discovery = np.flatnonzero((pairs["split"] == "discovery").to_numpy())
    estimate = contrasts(exact.rows(discovery), by_kind.iloc[discovery].reset_index(drop=True))
    edits = families_enough(_edits(table, by_kind, parameters))
    if edits.empty:
        raise AnalysisError(
            "No kind of edit has five validation families; give more sequences with a known start codon, or "
            "raise causal_acdc.causes.edits_per_kind."
        )
    exp = replace(experiment.open(), pairs=align_table(edits, handle.codon_markers))
    found = exp.effects("exact", nodes=screen_by_cause(estimate, wanted.screened))
    measured = contrasts(found, edits)
    resampled: dict[str, Any] = {"n_resamples": parameters.curves.n_resamples, "seed": parameters.seed}
    matrix = join_certified(cause_matrix(measured, q=wanted.q, **resampled), stability)
    known = _certified(stability, exp.widths)
    summary = cause_summary(exp, measured, matrix, found, certified=known, **resampled)
    causes = summary[summary["role"] != "decoy"]
    LOGGER.info(
        "%d of %d (feature, cause) confirmed, %d of %d features for some cause; %s of %d true causes have a "
        "certified"
        " feature",
        int(matrix["confirmed"].sum()),
        len(matrix),
        len(matrix[matrix["confirmed"]][["site", "feature"]].drop_duplicates()),
        len(measured.nodes),
        "an unknown number" if known is None else int((causes["n_certified"] > 0).sum()),
        len(causes),
    )
    return stamp(matrix, found.metadata), stamp(summary, found.metadata), contrast_table(measured)


def _certified(stability: pd.DataFrame, widths: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """The certified features as a set of nodes; None where the stability of a site is not known."""
    chosen: dict[str, np.ndarray] = {}
    for site, width in widths.items():
        own = stability[stability["site"].astype(str) == site]
        if own.empty or bool((own["certified"] == "unknown").any()):
            return None
        chosen[site] = np.zeros(width, dtype=bool)
        chosen[site][own.loc[own["certified"] == "yes", "feature"].to_numpy(dtype=np.int64)] = True
    return chosen


def _named_by_kind(pairs: pd.DataFrame, parameters: CausalParameters) -> pd.DataFrame:
    """The pairs, those that nobody designed named after what they change."""
    from helix_sae.causal.causes import kinds_by_what_changes

    if parameters.pairs.source in ("natural", "named"):
        return pairs.assign(kind=kinds_by_what_changes(pairs))
    return pairs


def _edits(table: pd.DataFrame, pairs: pd.DataFrame, parameters: CausalParameters) -> pd.DataFrame:
    """What is tested: edits made of the sequences of validation families; or the variants there are."""
    from helix_sae.causal.edits import design_pairs
    from helix_sae.causal.pairs import designed_pairs

    if parameters.pairs.source in ("natural", "named"):
        return pairs[pairs["split"] == "validation"].reset_index(drop=True)
    wanted, longest = parameters.causes, parameters.pairs.max_length
    kept = table["split"] == "validation"
    if longest is not None:
        kept &= table["sequence"].str.len() <= longest
    designs = design_pairs(
        table[kept].reset_index(drop=True),
        n_per_kind=wanted.edits_per_kind,
        kinds=wanted.kinds,
        seed=parameters.seed,
    )
    if designs.empty:
        raise AnalysisError(
            "No edit can be designed to ask for causes: the start codon of no validation sequence is known, "
            "or none has a place for causal_acdc.causes.kinds."
        )
    splits = pd.Series("validation", index=designs.index)
    return designed_pairs(designs, parameters.target, splits=splits, difference_kind="expected").table
