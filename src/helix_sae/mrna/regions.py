"""Where the 5'UTR, coding sequence and 3'UTR of each sequence lie, and what is not known about them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from helix_sae.errors import DataError
from helix_sae.mrna.encoding import FlatSequences, encode


class Regions(NamedTuple):
    """Encoded sequences with the borders of their regions.

    Attributes
    ----------
    flat : FlatSequences
        The sequences.
    start : (n,) int64
        Start of the coding sequence, where the 5'UTR ends; 0 where not known.
    end : (n,) int64
        End of what is visible of the coding sequence: the end of the sequence where it runs on past it; 0
        where the start is not known.
    has_cds : (n,) bool
        Whether ``cds_start`` is known: without it no nucleotide can be given a region.
    has_end : (n,) bool
        Whether ``cds_end`` is known: without it the sequence has no stop codon and no 3'UTR.
    """

    flat: FlatSequences
    start: Int[np.ndarray, " n"]
    end: Int[np.ndarray, " n"]
    has_cds: Bool[np.ndarray, " n"]
    has_end: Bool[np.ndarray, " n"]

    @property
    def n(self) -> int:
        """Number of sequences."""
        return len(self.start)


def regions_of(table: pd.DataFrame) -> Regions:
    """Encode a table's sequences and check its coding coordinates.

    Parameters
    ----------
    table : DataFrame
        ``sequence`` over ACGUN, ``cds_start`` and ``cds_end`` (0-based half-open, nullable).

    Raises
    ------
    DataError
        When a sequence has another letter, or a coding sequence does not fit in its sequence.
    """
    flat = encode(table["sequence"].tolist())
    start, has_cds = _nullable(table, "cds_start")
    end, has_end = _nullable(table, "cds_end")
    lengths = flat.lengths
    visible = np.where(has_end, end, lengths)
    wrong = np.flatnonzero(
        (has_cds & ((start < 0) | (start > lengths) | (visible > lengths) | (visible < start)))
        | (has_end & ~has_cds)
    )
    if wrong.size:
        row = int(wrong[0])
        name = table["sequence_id"].iloc[row] if "sequence_id" in table else row
        raise DataError(
            f"record {name}: coding sequence [{table['cds_start'].iloc[row]}, {table['cds_end'].iloc[row]})"
            f" does not fit in a sequence of {int(lengths[row])} nt; correct cds_start and cds_end, or leave"
            " both empty"
        )
    return Regions(flat, np.where(has_cds, start, 0), np.where(has_cds, visible, 0), has_cds, has_end)


def _nullable(table: pd.DataFrame, name: str) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    column: Any = table[name]
    known = column.notna().to_numpy(dtype=np.bool_)
    return column.astype("Int64").fillna(-1).to_numpy(dtype=np.int64), known
