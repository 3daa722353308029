"""Nodes that make the probe and the pairs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import DataError, ModelError
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters

if TYPE_CHECKING:
    from helix_sae.causal.pairs import Pairs
    from helix_sae.causal.probe import Probe, ProbeFit
    from helix_sae.helix.loading import HelixHandle
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Pairs = Probe = ProbeFit = HelixHandle = Any

LOGGER = logging.getLogger(__name__)


def embed(table: pd.DataFrame, handle: HelixHandle, parameters: CausalParameters) -> pd.DataFrame:
    """Mean-pooled embeddings of every sequence: a row a sequence, a column a dimension, indexed by sequence_id."""
    from helix_sae.helix.loading import open_model
    from helix_sae.mrna.tokens import tokenize_table

    embedding = open_model(handle).embed(tokenize_table(table, handle.codon_markers), parameters.token_budget)
    columns = [f"e{i}" for i in range(embedding.shape[1])]
    return pd.DataFrame(embedding, columns=columns, index=pd.Index(table["sequence_id"], name="sequence_id"))


def read_out(
    embeddings: pd.DataFrame, table: pd.DataFrame, handle: HelixHandle, parameters: CausalParameters
) -> tuple[Probe, pd.DataFrame, pd.DataFrame]:
    """Fit the probe on the discovery clusters and judge it on the others.

    Returns
    -------
    probe : Probe
    probe_metrics : DataFrame
        One row, with the ``floor`` that the held-out value was held against.
    probe_predictions : DataFrame
        ``sequence_id, value, prediction, split``.

    Raises
    ------
    WeakProbeError
        If the probe is below the floor.
    """
    from helix_sae.causal.probe import require_strength

    if parameters.target not in table.columns:
        known = [c for c in table.columns if str(c).startswith("functional_")]
        raise DataError(
            f"The mRNA table has no column {parameters.target!r} to explain; its functional ones are "
            f"{', '.join(known) or 'none'}. Set causal_acdc.target, or map the file's column in ingestion.columns."
        )
    rows = table.set_index("sequence_id").loc[embeddings.index]
    fit = _fit(embeddings.to_numpy(), rows, handle, parameters)
    LOGGER.info("probe of %s:\n%s", parameters.target, fit.metrics.to_string(index=False))
    require_strength(fit, parameters.probe.floor, override=parameters.probe.override_floor)
    predictions = fit.predictions.assign(sequence_id=embeddings.index[fit.predictions["row"]]).drop(
        columns="row"
    )
    return fit.probe, fit.metrics.assign(floor=parameters.probe.floor), predictions


def pair(
    table: pd.DataFrame, designs: pd.DataFrame, parameters: CausalParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of sequences, and the candidates that were left out with the reason for each."""
    longest = parameters.pairs.max_length
    if longest is not None:
        short = table["sequence"].str.len() <= longest
        LOGGER.info("pairs of sequences up to %d nt: %d of %d records", longest, int(short.sum()), len(table))
        table, designs = table[short].reset_index(drop=True), designs[designs["source"].str.len() <= longest]
    pairs = _pairs(table, designs, parameters)
    LOGGER.info("%d pairs; left out: %s", len(pairs.table), pairs.counts().to_dict() or "none")
    return pairs.table, pairs.exclusions


def causal_split(split: pd.Series) -> pd.Series:
    """The parts of the mRNA table by the names of the causal library."""
    return split.map({"discovery": "discovery", "validation": "heldout"})


def _fit(
    embedding: np.ndarray, rows: pd.DataFrame, handle: HelixHandle, parameters: CausalParameters
) -> ProbeFit:
    from helix_sae.causal.probe import fit_probe, head_probe
    from helix_sae.helix.loading import open_model

    target = pd.to_numeric(rows[parameters.target]).to_numpy(dtype=float)
    clusters, split = rows["cluster"].tolist(), causal_split(rows["split"]).tolist()
    kind = parameters.probe.kind
    if kind != "head":
        return fit_probe(
            embedding, target, clusters, split, name=parameters.target, kind=kind, seed=parameters.seed
        )
    heads = open_model(handle).heads
    if heads is None or parameters.target not in heads.phenotypes:
        raise ModelError(
            f"The model {handle} has no head for {parameters.target!r} "
            f"(it has {', '.join(heads.phenotypes) if heads else 'none'}); set causal_acdc.probe.kind to ridge."
        )
    at = heads.phenotypes.index(parameters.target)
    scale, mean = float(heads.phenotype_scale[at]), float(heads.phenotype_mean[at])
    weight = heads.phenotype.weight[at].double().cpu().numpy() * scale
    bias = float(heads.phenotype.bias[at]) * scale + mean
    return head_probe(weight, bias, embedding, target, clusters, split, name=parameters.target)


def _pairs(table: pd.DataFrame, designs: pd.DataFrame, parameters: CausalParameters) -> Pairs:
    from helix_sae.causal.pairs import PairBounds, named_pairs, natural_pairs

    wanted = parameters.pairs
    if wanted.source in ("designed", "edited"):
        return _designed(table, designs, parameters)
    bounds = PairBounds(
        wanted.num_sequence_pairs,
        wanted.min_target_diff,
        wanted.max_length_ratio,
        wanted.max_edit_distance,
        wanted.min_reads,
    )
    splits = causal_split(table["split"])
    reads = None if wanted.min_reads is None else "reads"
    if wanted.source == "named":
        return named_pairs(
            table,
            parameters.target,
            bounds,
            splits=splits,
            parent=wanted.parent,
            reads=reads,
            seed=parameters.seed,
        )
    return natural_pairs(table, parameters.target, bounds, splits=splits, reads=reads, seed=parameters.seed)


def _designed(table: pd.DataFrame, designs: pd.DataFrame, parameters: CausalParameters) -> Pairs:
    """The shipped counterfactuals of this table's families, or edits of the table's own sequences."""
    from helix_sae.causal.designs import design_pairs
    from helix_sae.causal.pairs import designed_pairs

    wanted = parameters.pairs
    made = wanted.source == "edited"
    if made:
        designs = design_pairs(table, n_per_kind=wanted.edits_per_kind, seed=parameters.seed)
    cluster = "cluster" if "cluster" in designs.columns else "family"
    split_of = causal_split(table.drop_duplicates("cluster").set_index("cluster")["split"])
    kept = designs[designs[cluster].isin(split_of.index)].reset_index(drop=True)
    if kept.empty:
        raise DataError(
            "None of the designed pairs belongs to a family of this mRNA table; they go with the demo records. "
            "Set causal_acdc.pairs.source to edited, natural or named."
        )
    return designed_pairs(
        kept,
        parameters.target,
        splits=kept[cluster].map(split_of),
        kinds=wanted.kinds,
        num_sequence_pairs=wanted.num_sequence_pairs,
        difference_kind="expected" if made else "true",
        seed=parameters.seed,
    )
