"""Nodes that make the probe and the pairs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError, ModelError
from helix_sae.mrna.columns import own_name
from helix_sae.pipelines.causal_acdc.experiment import as_read
from helix_sae.pipelines.causal_acdc.parameters import NO_TARGET, CausalParameters, PairParameters
from helix_sae.pipelines.ingestion.parameters import IngestionParameters

if TYPE_CHECKING:
    from helix_sae.causal.pairs import Pairs
    from helix_sae.causal.read_out import Probe, ProbeFit
    from helix_sae.models.registry import ModelHandle
    from helix_sae.mrna.records import RawRecords
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Pairs = Probe = ProbeFit = ModelHandle = RawRecords = Any

LOGGER = logging.getLogger(__name__)


def tabulate_further(
    raw: RawRecords, table: pd.DataFrame, ingestion: IngestionParameters, parameters: CausalParameters
) -> pd.DataFrame:
    """Further labelled records for the probe alone; a table without rows when ``probe_sequences`` names no file.

    They are read like the sequences themselves, with those of ``ingestion.columns`` that a probe needs.
    """
    from helix_sae.causal.probe_records import further_records
    from helix_sae.mrna.columns import property_name
    from helix_sae.mrna.records import build_table

    if not raw.records and not raw.rejected:
        return table.iloc[:0][["sequence_id", "sequence", "cds_start", "cds_end", "cluster"]].assign(
            **{parameters.target: pd.Series(dtype="float64")}
        )
    read = ("sequence_id", "sequence", "cds_start", "cds_end", parameters.target)
    extra, _ = build_table(
        raw,
        columns={name: column for name, column in ingestion.columns.items() if property_name(name) in read},
        properties=[parameters.target],
        reporter=ingestion.reporter,
        counted_from=ingestion.counted_from,
        max_tokens=ingestion.max_tokens,
        on_long_sequence=ingestion.on_long_sequence,
        on_bad_record=ingestion.on_bad_record,
        cluster_by="none",
    )
    found = further_records(
        extra,
        table,
        table["split"] == "validation",
        parameters.target,
        limit=parameters.probe.max_extra,
        seed=parameters.seed,
    )
    LOGGER.info("%d further records for the probe; left out: %s", len(found.table), found.left_out or "none")
    return found.table[["sequence_id", "sequence", "cds_start", "cds_end", "cluster", parameters.target]]


def embed(table: pd.DataFrame, handle: ModelHandle, parameters: CausalParameters) -> pd.DataFrame:
    """What the read-out reads of every sequence that it can learn from or be judged on.

    Those are the sequences with a known target, as long as pairs may be (``pairs.max_length``).

    Returns
    -------
    DataFrame
        A row a sequence, a column a dimension, indexed by sequence_id.

    Raises
    ------
    AnalysisError
        If there is no such property, or all sequences that have it are longer than that.
    """
    from helix_sae.mrna.tokens import tokenize_table

    _need_target(table, parameters)
    known = table[parameters.target].notna()
    if parameters.pairs.max_length is not None:
        known &= table["sequence"].str.len() <= parameters.pairs.max_length
    chosen = table[known]
    if chosen.empty and table[parameters.target].notna().any():
        raise AnalysisError(
            f"No sequence with a known {own_name(parameters.target)} is as short as "
            f"{parameters.pairs.max_length} nt"
            " (causal_acdc.pairs.max_length; null takes all)."
        )
    model = as_read(handle, parameters).open()
    embedding = model.embed(tokenize_table(chosen, handle.codon_markers), parameters.token_budget)
    columns = [f"e{i}" for i in range(embedding.shape[1])]
    return pd.DataFrame(embedding, columns=columns, index=pd.Index(chosen["sequence_id"], name="sequence_id"))


def _need_target(table: pd.DataFrame, parameters: CausalParameters) -> None:
    if parameters.target == NO_TARGET:
        raise AnalysisError(
            "No property to explain is named: --target COLUMN for helix-sae, causal_acdc.target for kedro "
            "run."
        )
    if parameters.target not in table.columns:
        known = [c for c in table.columns if str(c).startswith("functional_")]
        raise AnalysisError(
            f"The mRNA table has no column {parameters.target!r} to explain; its functional ones are "
            f"{', '.join(known) or 'none'}. Set causal_acdc.target, or map the file's column in "
            "ingestion.columns."
        )


def read_out(
    embeddings: pd.DataFrame,
    table: pd.DataFrame,
    further_embeddings: pd.DataFrame,
    further: pd.DataFrame,
    handle: ModelHandle,
    parameters: CausalParameters,
) -> tuple[Probe, pd.DataFrame, pd.DataFrame]:
    """Fit the probe on the discovery clusters, and further records if there are any; judge it on the other clusters.

    Returns
    -------
    probe : Probe
    probe_metrics : DataFrame
        One row, with the ``floor`` that the held-out value was held against, ``n_further`` and, with further
        records, ``out_of_fold_own`` and ``out_of_fold_further``.
    probe_predictions : DataFrame
        ``sequence_id, value, prediction, split``, ``is_further``.

    Raises
    ------
    WeakProbeError
        If the probe is below the floor.
    """
    from helix_sae.causal.read_out import require_strength

    _need_target(table, parameters)
    wanted = ["sequence_id", "cluster", "split", parameters.target]
    own = table[wanted].set_index("sequence_id").loc[embeddings.index]
    more = further.set_index("sequence_id").loc[further_embeddings.index]
    rows = pd.concat([own, more.assign(split="discovery")[wanted[1:]]])
    is_further = np.arange(len(rows)) >= len(own)
    embedding = np.concatenate([embeddings.to_numpy(), further_embeddings.to_numpy()])
    fit = _fit(embedding, rows, is_further, handle, parameters)
    predictions = fit.predictions.assign(
        sequence_id=rows.index[fit.predictions["row"]], is_further=is_further[fit.predictions["row"]]
    ).drop(columns="row")
    metrics = fit.metrics.assign(floor=parameters.probe.floor, **_by_origin(predictions))
    LOGGER.info("probe of %s:\n%s", parameters.target, metrics.T.to_string(header=False))
    require_strength(fit, parameters.probe.floor, override=parameters.probe.override_floor)
    return fit.probe, metrics, predictions


def _by_origin(predictions: pd.DataFrame) -> dict[str, float]:
    """Number of further records, and how well those and the table's own are predicted out of fold."""
    from helix_sae.causal.read_out import r_squared

    inside = predictions[predictions["split"] == "discovery"]
    out: dict[str, float] = {"n_further": int(inside["is_further"].sum())}
    is_class = predictions["value"].isin([0.0, 1.0]).all()
    if out["n_further"] and not is_class:
        for name, part in (("own", inside[~inside["is_further"]]), ("further", inside[inside["is_further"]])):
            value, guess = part["value"].to_numpy(dtype=float), part["prediction"].to_numpy(dtype=float)
            out[f"out_of_fold_{name}"] = r_squared(value, guess)
    return out


def pair(
    table: pd.DataFrame, designs: pd.DataFrame, parameters: CausalParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of sequences, and the candidates that were left out with the reason for each."""
    longest = parameters.pairs.max_length
    if longest is not None:
        short = table["sequence"].str.len() <= longest
        LOGGER.info("pairs of sequences up to %d nt: %d of %d records", longest, int(short.sum()), len(table))
        table = table[short].reset_index(drop=True)
        if len(designs):
            designs = designs[designs["source"].str.len() <= longest]
    pairs = _pairs(table, designs, parameters)
    LOGGER.info("%d pairs; left out: %s", len(pairs.table), pairs.counts().to_dict() or "none")
    return pairs.table, pairs.exclusions


def _fit(
    embedding: np.ndarray,
    rows: pd.DataFrame,
    is_further: np.ndarray,
    handle: ModelHandle,
    parameters: CausalParameters,
) -> ProbeFit:
    from helix_sae.causal.read_out import fit_probe, head_probe

    target = _numbers(rows[parameters.target], parameters)
    clusters, split = rows["cluster"].tolist(), rows["split"].tolist()
    kind = parameters.probe.kind
    if kind != "head":
        return fit_probe(
            embedding,
            target,
            clusters,
            split,
            name=parameters.target,
            kind=kind,
            # Another experiment may measure on another scale; a class is a class in both.
            shifted=is_further if parameters.probe.positive_class is None else None,
            seed=parameters.seed,
        )
    weight, bias, chosen = _head(handle, parameters)
    return head_probe(weight, bias, embedding, target, clusters, split, name=parameters.target, chosen=chosen)


def _head(
    handle: ModelHandle, parameters: CausalParameters
) -> tuple[np.ndarray, np.ndarray | float, int | None]:
    """Weight and bias of the model's own head for the target, and the class that is read of a classifier."""
    from helix_sae.models.registry import open_model

    head = open_model(handle).head
    is_class = head is not None and head.task == "classification"
    wanted = parameters.probe.positive_class if is_class else parameters.target
    if head is None or wanted not in head.outputs:
        raise ModelError(
            f"The model {handle} has no head for {wanted!r} (it has "
            f"{', '.join(head.outputs) if head else 'none'}); set causal_acdc.target to a property or "
            "causal_acdc.probe.positive_class to a class that it has, or causal_acdc.probe.kind to ridge."
        )
    at = head.outputs.index(wanted)
    if is_class:
        return head.weight.double().numpy(), head.bias.double().numpy(), at
    return head.weight[at].double().numpy(), float(head.bias[at]), None


def _numbers(column: pd.Series, parameters: CausalParameters) -> np.ndarray:
    """The target's values; 1 for the positive class where one is named, 0 for the others."""
    positive = parameters.probe.positive_class
    if positive is not None:
        known = column.notna().to_numpy()
        return np.where(known, (column.astype(str) == positive).to_numpy(dtype=float), np.nan)
    try:
        return pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise AnalysisError(
            f"The target {parameters.target!r} is not a number ({error}). Name the class to explain in "
            "causal_acdc.probe.positive_class, or another target."
        ) from error


def _pairs(table: pd.DataFrame, designs: pd.DataFrame, parameters: CausalParameters) -> Pairs:
    from helix_sae.causal.pairs import PairBounds, named_pairs, natural_pairs

    wanted = parameters.pairs
    if wanted.source in ("designed", "edited"):
        return _designed(table, designs, parameters)
    if parameters.probe.positive_class is not None and parameters.target in table.columns:
        # Pairs differ where one of the two is of the class that is explained.
        table = table.assign(**{parameters.target: _numbers(table[parameters.target], parameters)})
    bounds = PairBounds(
        wanted.num_sequence_pairs,
        wanted.min_target_diff,
        wanted.max_length_ratio,
        wanted.max_edit_distance,
        wanted.min_reads,
    )
    splits = table["split"]
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
    from helix_sae.causal.edits import design_pairs
    from helix_sae.causal.pairs import designed_pairs

    wanted = parameters.pairs
    made = wanted.source == "edited"
    if made:
        designs = design_pairs(
            table,
            n_per_kind=wanted.edits_per_kind,
            kinds=_kinds_to_make(wanted),
            motifs=wanted.motifs,
            seed=parameters.seed,
        )
        if designs.empty:
            raise AnalysisError(_why_no_edits(table))
    if designs.empty:
        raise AnalysisError(
            "There are no designed pairs; they go with the demo records. Set causal_acdc.pairs.source to "
            "edited, natural or named."
        )
    cluster = "cluster" if "cluster" in designs.columns else "family"
    split_of = table.drop_duplicates("cluster").set_index("cluster")["split"]
    kept = designs[designs[cluster].isin(split_of.index)].reset_index(drop=True)
    if kept.empty:
        raise AnalysisError(
            "None of the designed pairs belongs to a family of this mRNA table; they go with the demo "
            "records. Set causal_acdc.pairs.source to edited, natural or named."
        )
    return designed_pairs(
        kept,
        parameters.target,
        splits=kept[cluster].map(split_of),
        kinds=None if made else wanted.kinds,
        num_sequence_pairs=wanted.num_sequence_pairs,
        difference_kind="expected" if made else "true",
        seed=parameters.seed,
    )


def _why_no_edits(table: pd.DataFrame) -> str:
    """What the sequences lack for designed edits."""
    known = int(table["cds_start"].notna().sum())
    if not known:
        return (
            f"No edit can be designed: the start codon is known in none of the {len(table):,} sequences. "
            "Map the file's column to cds_start in ingestion.columns, or name the reporter in "
            "ingestion.reporter, or set causal_acdc.pairs.source to natural or named."
        )
    return (
        f"No edit can be designed: of the {len(table):,} sequences {known:,} have a known start codon, and "
        "none of them has a place for the kinds asked for. Set other kinds in causal_acdc.pairs.kinds, or "
        "pairs.source to natural or named."
    )


def _kinds_to_make(wanted: PairParameters) -> list[str]:
    """The kinds of edit asked for; those of motifs are made for every motif that is named."""
    from helix_sae.causal.edits import OWN_KINDS, STANDARD_KINDS

    if wanted.kinds is None:
        return [*STANDARD_KINDS, *OWN_KINDS]
    return [kind for kind in wanted.kinds if kind.removeprefix("motif_") not in wanted.motifs]
