"""Motifs and intervals that users bring as concepts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from pydantic import BaseModel, ConfigDict, field_validator

from helix_sae.errors import DataError
from helix_sae.mrna.encoding import Motif, find_motif, parse_motif
from helix_sae.mrna.regions import Regions

RegionName = Literal["any", "utr5", "cds", "utr3"]

INTERVAL_COLUMNS = ("sequence_id", "start", "end", "name")


class UserMotif(BaseModel):
    """A motif of the user's.

    Parameters
    ----------
    name : str
        Name of the concept.
    pattern : str
        IUPAC letters, T as U; at least one.
    region : {"any", "utr5", "cds", "utr3"}
        Region in which the motif has to lie as a whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    pattern: str
    region: RegionName = "any"

    @field_validator("pattern")
    @classmethod
    def _is_iupac(cls, pattern: str) -> str:
        try:
            parse_motif(pattern)
        except DataError as error:
            raise ValueError(str(error)) from error
        return pattern.upper().replace("T", "U")

    @property
    def motif(self) -> Motif:
        """The pattern as the nucleotide codes allowed at each position."""
        return parse_motif(self.pattern)


def find_in_region(regions: Regions, motif: Motif, region: RegionName) -> Int[np.ndarray, " n_hits"]:
    """Flat indices at which a motif begins and lies wholly inside the region of its sequence.

    A sequence whose region is not known has no hits in it.
    """
    hits = find_motif(regions.flat, motif)
    if region == "any":
        return hits
    record = np.searchsorted(regions.flat.offsets, hits, side="right") - 1
    position = hits - regions.flat.offsets[record]
    low, high, known = region_span(regions, region)
    inside = known[record] & (position >= low[record]) & (position + len(motif) <= high[record])
    return hits[inside]


def region_span(
    regions: Regions, region: RegionName
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Start and end of a region in every sequence, and whether it is known.

    The 3'UTR of a sequence whose coding sequence runs on past its end is known: there is none.
    """
    lengths = regions.flat.lengths
    nowhere = np.zeros(regions.n, dtype=np.int64)
    match region:
        case "any":
            return nowhere, lengths, np.ones(regions.n, dtype=np.bool_)
        case "utr5":
            return nowhere, regions.start, regions.has_cds
        case "cds":
            return regions.start, regions.end, regions.has_cds
        case "utr3":
            return regions.end, lengths, regions.has_cds


def check_intervals(intervals: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Check a BED-like table of named intervals against the mRNA table.

    Parameters
    ----------
    intervals : DataFrame
        ``sequence_id``, ``start``, ``end`` (0-based half-open, as in BED) and ``name``, the concept.
    table : DataFrame
        The mRNA table; intervals of sequences that it does not hold are left out.

    Returns
    -------
    DataFrame
        ``row`` (of the mRNA table), ``start``, ``end``, ``name``, sorted by name, row and start.

    Raises
    ------
    DataError
        When a column is missing, or an interval is empty or leaves its sequence.
    """
    absent = [name for name in INTERVAL_COLUMNS if name not in intervals.columns]
    if absent:
        raise DataError(
            f"the interval table lacks the column(s) {', '.join(absent)}; it needs"
            f" {', '.join(INTERVAL_COLUMNS)}"
        )
    rows = pd.Series(np.arange(len(table)), index=table["sequence_id"].to_numpy())
    lengths = table["sequence"].str.len().to_numpy()
    kept = intervals.loc[intervals["sequence_id"].isin(rows.index.tolist()), list(INTERVAL_COLUMNS)]
    checked = pd.DataFrame(
        {
            "row": rows.loc[kept["sequence_id"]].to_numpy(dtype=np.int64),
            "start": kept["start"].to_numpy(dtype=np.int64),
            "end": kept["end"].to_numpy(dtype=np.int64),
            "name": kept["name"].astype(str).to_numpy(),
        }
    )
    bad = (
        (checked["start"] < 0)
        | (checked["end"] <= checked["start"])
        | (checked["end"] > lengths[checked["row"]])
    )
    if bad.any():
        first = int(np.argmax(bad.to_numpy()))
        where = kept.iloc[first]
        raise DataError(
            f"interval {first} ({where['name']} of {where['sequence_id']}): [{where['start']},"
            f" {where['end']}) does not lie in a sequence of {int(lengths[checked['row'].iloc[first]])} nt;"
            " intervals are 0-based and half-open"
        )
    return checked.sort_values(["name", "row", "start", "end"], ignore_index=True)


def check_names(motifs: Sequence[UserMotif], interval_names: Sequence[str], taken: Sequence[str]) -> None:
    """Raise when two concepts would have the same name."""
    seen = set(taken)
    for name in (*(motif.name for motif in motifs), *interval_names):
        if name in seen:
            raise DataError(f"concept {name!r} exists already; give the motif or interval another name")
        seen.add(name)
