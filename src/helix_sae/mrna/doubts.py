"""Coding regions that fit their sequence and still do not look like one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool

from helix_sae.mrna.codons import codon_track
from helix_sae.mrna.regions import regions_of
from helix_sae.mrna.tables import CODONS, STOPS

NO_START = "does not start with AUG"
NO_STOP = "does not end in a stop codon"
STOP_INSIDE = "has a stop codon in frame before its end"

_START_CODON = CODONS.index("AUG")
_IS_STOP = np.append(np.isin(CODONS, STOPS), False)  # the last entry: a codon with an N


def coding_region_doubts(table: pd.DataFrame) -> pd.DataFrame:
    """Name the coding regions that biology would not expect; they are kept, and it is for the user to judge.

    A wrong annotation (an intron left in, a coordinate counted from 1) shows here. The end is only looked at
    where ``cds_end`` is known.

    Parameters
    ----------
    table : DataFrame
        An mRNA table.

    Returns
    -------
    DataFrame
        ``sequence_id``, ``doubt`` (text); in the order of the table.
    """
    regions = regions_of(table)
    inside = np.where(regions.has_cds, regions.start, -1), np.where(regions.has_cds, regions.end, -1)
    track = codon_track(regions.flat, *inside)
    n_codons = np.bincount(track.record, minlength=regions.n)
    first = np.cumsum(n_codons) - n_codons
    last = np.zeros(len(track.codon), dtype=np.bool_)
    last[(first + n_codons - 1)[n_codons > 0]] = True
    is_stop = _IS_STOP[track.codon]

    def any_of(codons: Bool[np.ndarray, " n_codons"]) -> Bool[np.ndarray, " n"]:
        return np.bincount(track.record[codons], minlength=regions.n) > 0

    start = np.zeros(regions.n, dtype=np.bool_)
    start[n_codons > 0] = track.codon[first[n_codons > 0]] == _START_CODON
    doubts = {
        NO_START: regions.has_cds & (n_codons > 0) & ~start,
        NO_STOP: regions.has_end & ~any_of(last & is_stop),
        # Where the coding region runs on past the sequence, its last visible codon is an inner one too.
        STOP_INSIDE: any_of(is_stop & ~(last & regions.has_end[track.record])),
    }
    found = [(int(row), doubt) for doubt, mask in doubts.items() for row in np.flatnonzero(mask)]
    found.sort(key=lambda pair: pair[0])
    names = table["sequence_id"].to_numpy(dtype=object)
    return pd.DataFrame([(names[row], doubt) for row, doubt in found], columns=["sequence_id", "doubt"])
