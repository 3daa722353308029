"""Upstream open reading frames of a batch of sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from helix_sae.mrna.mechanism import AugClass, UpstreamAugs, first_stop_in_frame, upstream_augs
from helix_sae.mrna.regions import Regions


class UpstreamOrfs(NamedTuple):
    """uORFs, ordered by record and start; AUGs of one frame that end at the same stop are one uORF.

    Attributes
    ----------
    record : (n_uorfs,) int64
        Index of the sequence.
    start : (n_uorfs,) int64
        Position of the 5'-most AUG.
    end : (n_uorfs,) int64
        Position after the stop codon; the length of the sequence where an overlapping uORF meets none.
    contained : (n_uorfs,) bool
        True where the stop ends before the main start, False where the uORF overlaps it out of frame.
    """

    record: Int[np.ndarray, " n_uorfs"]
    start: Int[np.ndarray, " n_uorfs"]
    end: Int[np.ndarray, " n_uorfs"]
    contained: Bool[np.ndarray, " n_uorfs"]


def known_upstream_augs(regions: Regions) -> UpstreamAugs:
    """Upstream AUGs of the sequences whose coding start is known (elsewhere ``start`` is 0: none)."""
    return upstream_augs(regions.flat, regions.start)


def upstream_orfs(regions: Regions) -> UpstreamOrfs:
    """Find the uORFs of every sequence whose coding start is known.

    An upstream AUG that is in frame with the main start and has no stop before it extends the main reading
    frame; it is not a uORF.
    """
    augs = known_upstream_augs(regions)
    opens = np.flatnonzero(augs.kind != AugClass.IN_FRAME)
    record, start = augs.record[opens], augs.position[opens]
    contained = augs.kind[opens] == AugClass.CONTAINED
    lengths = regions.flat.lengths
    stop = first_stop_in_frame(regions.flat, lengths, record, start)
    end = np.where(stop >= 0, stop + 3, lengths[record])
    width = int(lengths.max(initial=0)) + 1
    # The first AUG of each (record, frame, end): np.unique keeps the first of equals, and AUGs ascend.
    _, first = np.unique((record * 3 + start % 3) * width + end, return_index=True)
    first.sort()
    return UpstreamOrfs(record[first], start[first], end[first], contained[first])
