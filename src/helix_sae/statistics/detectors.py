"""Baselines in the form of codes: what a feature has to beat.

Each gives a sparse matrix of activations >= 0, one column a detector, that goes through the very same
:func:`~helix_sae.statistics.concept_matching.match_concepts` as the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from helix_sae.errors import AnalysisError


def signed_halves(
    values: Float[np.ndarray, "n_nucleotides n_units"], rows: Bool[np.ndarray, " n_nucleotides"]
) -> Any:
    """Signed units (neurons, components) as detectors: deviation above and below the mean, one column each.

    Parameters
    ----------
    values : float (n_nucleotides, n_units)
    rows : bool (n_nucleotides,)
        Rows that give the mean (the discovery set).

    Returns
    -------
    csr float32 (n_nucleotides, 2 n_units)
        Column u fires above the mean of unit u, column n_units + u below it.
    """
    centred = np.asarray(values, dtype=np.float32)
    centred = centred - centred[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
    halves = np.concatenate([centred, -centred], axis=1)
    above = halves > 0
    # Half of all numbers stay: by flat positions they are found several times as fast as by triplets.
    place = np.flatnonzero(above)
    first = np.concatenate([[0], np.cumsum(np.count_nonzero(above, axis=1))])
    columns = (place % halves.shape[1]).astype(np.int32)
    return sparse.csr_array((halves.ravel()[place], columns, first), shape=halves.shape)


def principal_components(
    values: Float[np.ndarray, "n_nucleotides n_units"],
    rows: Bool[np.ndarray, " n_nucleotides"],
    n_components: int,
) -> Float[np.ndarray, "n_nucleotides n_components"]:
    """Scores on the leading principal components, fitted on ``rows`` (the discovery set)."""
    fitted = np.asarray(values[rows], dtype=np.float64)
    mean = fitted.mean(axis=0)
    covariance = (fitted - mean).T @ (fitted - mean) / max(len(fitted) - 1, 1)
    _, vectors = np.linalg.eigh(covariance)
    leading = vectors[:, ::-1][:, : min(n_components, vectors.shape[1])]
    # the sign of an eigenvector is arbitrary: fix it, so that results repeat
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    return ((values - mean) @ leading).astype(np.float32)


def kmer_detectors(
    letters: Int[np.ndarray, " n_nucleotides"],
    offsets: Int[np.ndarray, " n_sequences_plus_1"],
    k: int,
    alphabet: str = "ACGU",
) -> tuple[Any, list[str]]:
    """One detector for every k-mer, firing on its last nucleotide (a causal model knows no more there).

    Parameters
    ----------
    letters : int (n_nucleotides,)
        Index into ``alphabet``; any other value (an N) belongs to no k-mer.
    offsets : int (n_sequences + 1,)
        Where each sequence starts; no k-mer crosses a boundary.
    k : int
        1 to 6.

    Returns
    -------
    codes : csr float32 (n_nucleotides, len(alphabet)**k)
    names : list of str
    """
    if not 1 <= k <= 6:
        raise AnalysisError(f"k must lie between 1 and 6, not {k}: the detectors number {len(alphabet)}^k.")
    letters = np.asarray(letters, dtype=np.int64)
    base = len(alphabet)
    word = np.zeros(len(letters), dtype=np.int64)
    within = np.arange(len(letters)) - np.repeat(np.asarray(offsets)[:-1], np.diff(offsets))
    valid = within >= k - 1
    for back in range(k):
        shifted = np.full(len(letters), -1, dtype=np.int64)
        shifted[back:] = letters[: len(letters) - back]
        valid &= (shifted >= 0) & (shifted < base)
        word += np.where(shifted >= 0, shifted, 0) * base**back
    rows = np.flatnonzero(valid)
    codes = sparse.csr_array(
        (np.ones(len(rows), dtype=np.float32), (rows, word[rows])), shape=(len(letters), base**k)
    )
    names = ["".join(alphabet[(w // base**p) % base] for p in reversed(range(k))) for w in range(base**k)]
    return codes, names


def marker_detectors(
    since_marker: Int[np.ndarray, " n_nucleotides"], n_markers: Int[np.ndarray, " n_nucleotides"]
) -> tuple[Any, list[str]]:
    """What codon markers in the model's input give away: region and phase, without a look at the nucleotides.

    Parameters
    ----------
    since_marker : int (n_nucleotides,)
        Tokens since the last marker (1 for the nucleotide right after it); -1 before the first marker.
    n_markers : int (n_nucleotides,)
        Markers before the nucleotide in its sequence.

    Returns
    -------
    codes : csr float32 (n_nucleotides, 7)
    names : list of str
        Before the first marker, in a codon, its first to third nucleotide, in the first codon, after the last
        codon.
    """
    since, count = np.asarray(since_marker), np.asarray(n_markers)
    in_codon = (since >= 1) & (since <= 3)
    fires = {
        "before": since < 0,
        "in_codon": in_codon,
        **{f"codon_{position}": since == position for position in (1, 2, 3)},
        "first_codon": in_codon & (count == 1),
        "after": since > 3,
    }
    return sparse.csr_array(np.column_stack(list(fires.values())).astype(np.float32)), list(fires)


def position_detectors(
    nucleotide: Int[np.ndarray, " n_nucleotides"],
    borders: Sequence[int] = (3, 6, 10, 15, 20, 30, 50, 100, 200),
) -> tuple[Any, list[str]]:
    """Detectors of the first nucleotides of a sequence: any recurrent model knows how far it has come.

    Parameters
    ----------
    nucleotide : int (n_nucleotides,)
        Position in the sequence, from 0.
    borders : sequence of int
        One detector each, which fires before it.

    Returns
    -------
    codes : csr float32 (n_nucleotides, len(borders))
    names : list of str
    """
    fires = np.asarray(nucleotide)[:, None] < np.asarray(borders)[None, :]
    return sparse.csr_array(fires.astype(np.float32)), [f"first_{border}" for border in borders]
