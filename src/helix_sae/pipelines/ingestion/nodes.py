"""Nodes of the ingestion pipeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.pipelines.ingestion.parameters import IngestionParameters

if TYPE_CHECKING:
    from helix_sae.mrna.annotations import NucleotideAnnotations
    from helix_sae.mrna.records import RawRecords
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    NucleotideAnnotations = RawRecords = Any

LOGGER = logging.getLogger(__name__)


def tabulate(
    raw: RawRecords,
    parameters: IngestionParameters,
    target: str | None = None,
    properties: list[str] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check the records, complete their properties and say which part each belongs to.

    ``target`` and ``properties`` are those that later parts ask for: a column of the file that is called so
    is read as one.

    Returns
    -------
    mrna_table, rejected_records : DataFrame
        The table with a column ``split`` (``discovery`` or ``validation``, by cluster), and the records set
        aside.
    """
    from helix_sae.mrna.absences import absences
    from helix_sae.mrna.doubts import coding_region_doubts
    from helix_sae.mrna.records import build_table
    from helix_sae.statistics.splits import split_by_cluster

    table, rejected = build_table(
        raw,
        columns=parameters.columns,
        properties=[name for name in (target, *(properties or ())) if name is not None],
        reporter=parameters.reporter,
        counted_from=parameters.counted_from,
        max_tokens=parameters.max_tokens,
        on_long_sequence=parameters.on_long_sequence,
        on_bad_record=parameters.on_bad_record,
        cluster_by=parameters.cluster_by,
    )
    if parameters.max_records is not None:
        table = _draw_clusters(table, parameters.max_records, parameters.split.seed)
    table = _complete(table, parameters)
    shares = {"discovery": parameters.split.discovery, "validation": parameters.split.validation}
    table["split"] = split_by_cluster(table["cluster"], shares, parameters.split.seed).to_numpy()
    LOGGER.info(
        "%d records in %d clusters (%d for discovery); %d set aside",
        len(table), table["cluster"].nunique(), int((table["split"] == "discovery").sum()), len(rejected),
    )  # fmt: skip
    doubts = coding_region_doubts(table).groupby("doubt")["sequence_id"]
    for doubt, ids in doubts:
        LOGGER.warning("the coding region %s in %d records, %s the first", doubt, len(ids), ids.iloc[0])
    for absence in absences(table):
        LOGGER.warning("Absent from the input: %s", absence)
    return table, rejected


def annotate(
    table: pd.DataFrame, intervals: pd.DataFrame, parameters: IngestionParameters
) -> NucleotideAnnotations:
    """Mark the concepts of every nucleotide, the user's own motifs and intervals among them."""
    from helix_sae.mrna.annotations import annotate_table
    from helix_sae.mrna.tables import MIRNA_SEEDS

    elsewhere = int((~intervals["sequence_id"].isin(table["sequence_id"])).sum())
    if elsewhere and elsewhere == len(intervals):
        raise DataError(
            f"None of the {elsewhere} intervals is of a sequence of the mRNA table, the first of them of "
            f"{intervals['sequence_id'].iloc[0]!r}; their first column has to hold its sequence_id."
        )
    if elsewhere:
        LOGGER.warning(
            "%d of %d intervals are of sequences that the mRNA table does not hold, and left out",
            elsewhere, len(intervals),
        )  # fmt: skip
    return annotate_table(
        table,
        mirna_seeds=parameters.mirna_seeds or MIRNA_SEEDS,
        motifs=parameters.motifs,
        intervals=intervals if len(intervals) else None,
        with_structure=parameters.with_structure,
    )


def _complete(table: pd.DataFrame, parameters: IngestionParameters) -> pd.DataFrame:
    """Add the properties that can be computed and that the file does not give; a given value is never overwritten."""
    from helix_sae.mrna.properties import compute_properties
    from helix_sae.mrna.tables import MIRNA_SEEDS

    computed = compute_properties(
        table, mirna_seeds=parameters.mirna_seeds or MIRNA_SEEDS, with_mfe=parameters.with_structure
    )
    new = [name for name in computed.columns if name not in table.columns and computed[name].notna().any()]
    return table.join(computed[new])


def _draw_clusters(table: pd.DataFrame, wanted: int, seed: int) -> pd.DataFrame:
    """Whole clusters in a random order until there are enough records; the file's order is kept."""
    if len(table) <= wanted:
        return table
    codes, clusters = pd.factorize(table["cluster"])
    sizes = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(clusters))
    taken = order[: int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1]
    return table[np.isin(codes, taken)].reset_index(drop=True)
