"""Where ribosomes translate upstream reading frames, nucleotide by nucleotide: what ribosome profiling would show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from helix_sae.mrna import mechanism
from helix_sae.mrna.encoding import FlatSequences, encode

CHANNELS = ("translated", "codon_start")
"""Share of arriving ribosomes that translate over a nucleotide; the same at first nucleotides of their codons
only."""

_GAP = 3


def upstream_occupancy(
    sequences: Sequence[str], cds_start: Sequence[int]
) -> list[Float[np.ndarray, "nucleotides channels"]]:
    """Noiseless occupancy by ribosomes that initiated at upstream AUGs.

    An upstream AUG is taken by the share of ribosomes of :mod:`helix_sae.mrna.mechanism`, and translated to
    its first in-frame stop codon, wherever that lies, or to the end of the sequence.

    Parameters
    ----------
    sequences : sequence of str
        RNA sequences.
    cds_start : sequence of int
        0-based main start codons.

    Returns
    -------
    list of float32 (nucleotides, 2)
        Columns as in :data:`CHANNELS`, non-negative; one array a sequence.
    """
    flat = encode(sequences)
    starts = mechanism.check_starts(flat, cds_start)
    augs = mechanism.upstream_augs(flat, starts)
    share = mechanism.sigmoid(mechanism.UAUG_INTERCEPT + mechanism.UAUG_SLOPE * augs.kozak)
    end = _ends(flat, augs.record, augs.position)
    # Sequences are laid out with a gap of one codon, into which a frame without a stop runs out.
    offsets = flat.offsets + _GAP * np.arange(len(flat.offsets))
    first, last = offsets[augs.record] + augs.position, offsets[augs.record] + end
    change = np.zeros(int(offsets[-1]) + _GAP)
    np.add.at(change, first, share)
    np.add.at(change, last, -share)
    translated = np.cumsum(change)
    codon_start = np.zeros_like(change)
    for frame in range(3):
        codon_start[frame::3] = np.cumsum(change[frame::3])
    tracks = np.stack([translated, codon_start], axis=1).clip(min=0).astype(np.float32)
    lengths = np.diff(flat.offsets)
    return [tracks[start : start + length] for start, length in zip(offsets[:-1], lengths, strict=True)]


def _ends(
    flat: FlatSequences, record: Int[np.ndarray, " n_augs"], position: Int[np.ndarray, " n_augs"]
) -> Int[np.ndarray, " n_augs"]:
    """Where translation stops: at the first in-frame stop codon, or at the first codon that is not whole."""
    lengths = np.diff(flat.offsets)
    stop = mechanism.first_stop_in_frame(flat, lengths, record, position)
    whole_codons = (lengths[record] - position + 2) // 3
    return np.where(stop >= 0, stop, position + 3 * whole_codons)
