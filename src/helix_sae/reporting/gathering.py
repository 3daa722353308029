"""Windows of many activations cut in one step: the fast twin of :mod:`helix_sae.reporting.windows`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8

from helix_sae.reporting.windows import LETTERS, Firings, region_track


class Cut(NamedTuple):
    """Windows around some activations, a row each; places beyond an end of the sequence hold zeros.

    Attributes
    ----------
    letters : uint8 (n, 2 * flank + 1)
        ASCII.
    track : int8 (n, 2 * flank + 1)
        Indices into :data:`helix_sae.reporting.windows.TRACKS`.
    activation : float32 (n, 2 * flank + 1)
    """

    letters: UInt8[np.ndarray, "n places"]
    track: Int[np.ndarray, "n places"]
    activation: Float[np.ndarray, "n places"]


class LaidOut:
    """The sequences of a table end to end with room between them, so that a window never reaches into a neighbour.

    Parameters
    ----------
    table : DataFrame
        ``sequence, cds_start, cds_end, cluster``.
    margin : int
        Room between two sequences: the largest flank that is asked for.
    """

    def __init__(self, table: pd.DataFrame, margin: int) -> None:
        sequences = [str(sequence) for sequence in table["sequence"]]
        self.lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        ends = margin + np.cumsum(self.lengths + margin)
        self.starts = ends - self.lengths - margin
        self.cds_start = pd.to_numeric(table["cds_start"], errors="coerce").to_numpy(float, na_value=np.nan)
        self.families: Int[np.ndarray, " n_sequences"] = pd.factorize(table["cluster"])[0]
        size = int(ends[-1]) if len(ends) else margin
        self.letters = np.zeros(size, dtype=np.uint8)
        self.track = np.zeros(size, dtype=np.int8)
        regions = zip(table["cds_start"], table["cds_end"], strict=True)
        for start, sequence, (cds_start, cds_end) in zip(self.starts, sequences, regions, strict=True):
            here = slice(start, start + len(sequence))
            self.letters[here] = np.frombuffer(sequence.encode("ascii", errors="replace"), dtype=np.uint8)
            known = (None if pd.isna(place) else int(place) for place in (cds_start, cds_end))
            self.track[here] = region_track(sequence, *known)
        lookup = np.full(256, -1, dtype=np.int8)
        lookup[[ord(letter) for letter in LETTERS]] = np.arange(len(LETTERS))
        self._codes = lookup[self.letters]
        self._activation = np.zeros(size, dtype=np.float32)

    def cut(self, fired: Firings, chosen: Int[np.ndarray, " n"], flank: int) -> Cut:
        """Windows around the activations ``chosen`` of one feature."""
        everywhere = self.starts[fired.sequence] + fired.position
        places = everywhere[chosen][:, None] + np.arange(-flank, flank + 1)
        self._activation[everywhere] = fired.activation
        activation = self._activation[places]
        self._activation[everywhere] = 0
        return Cut(self.letters[places], self.track[places], activation)

    def letter_counts(
        self, fired: Firings, chosen: Int[np.ndarray, " n"], flank: int
    ) -> Int[np.ndarray, "places 4"]:
        """What :func:`helix_sae.reporting.windows.letter_counts` counts."""
        places = np.arange(-flank, flank + 1)
        found = self._codes[(self.starts[fired.sequence[chosen]] + fired.position[chosen])[:, None] + places]
        row = np.broadcast_to(np.arange(len(places)), found.shape)[found >= 0]
        counts = np.bincount(row * len(LETTERS) + found[found >= 0], minlength=len(places) * len(LETTERS))
        return counts.reshape(len(places), len(LETTERS))
