"""Where a feature fires: windows of sequence around its activations, and the letters found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Bool, Float, Int

from helix_sae.errors import DataError

LETTERS = "ACGU"
BANDS: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Lower quantiles of the activations from which one window each is drawn."""

TRACKS = ("unknown", "utr5", "uaug", "start", "codon_odd", "codon_even", "stop", "utr3")
"""What a nucleotide can belong to."""
_UNKNOWN, _UTR5, _UAUG, _START, _ODD, _EVEN, _STOP, _UTR3 = range(8)
_STOPS = frozenset({"UAA", "UAG", "UGA"})


@dataclass(frozen=True)
class CodedCorpus:
    """The codes of a corpus at one site, with the sequences that they belong to.

    Attributes
    ----------
    table : DataFrame (n_sequences rows)
        mRNA table, in the order of the codes.
    codes : csr (n_tokens, n_features)
    offsets : int64 (n_sequences + 1,)
        Sequence ``i`` owns the rows ``offsets[i]:offsets[i + 1]``.
    nucleotide : int (n_tokens,)
        Index of each token's nucleotide within its sequence.
    is_nucleotide : bool (n_tokens,)
        False at codon markers.
    """

    table: pd.DataFrame
    codes: Any
    offsets: Int[np.ndarray, " n_sequences_plus_1"]
    nucleotide: Int[np.ndarray, " n_tokens"]
    is_nucleotide: Bool[np.ndarray, " n_tokens"]

    def __post_init__(self) -> None:
        n = self.codes.shape[0]
        if not n == self.offsets[-1] == len(self.nucleotide) == len(self.is_nucleotide):
            raise DataError(
                f"The codes have {n} rows, their offsets {self.offsets[-1]}, the tokens"
                f" {len(self.nucleotide)}: codes and activations are of different runs. Run `sae_training`"
                " again, or pin both with --load-versions."
            )
        if len(self.table) != len(self.offsets) - 1:
            raise DataError(
                f"{len(self.table)} sequences in the table, {len(self.offsets) - 1} in the codes: they are of"
                " different runs."
            )


class Firings(NamedTuple):
    """Every nucleotide at which one feature is active.

    Attributes
    ----------
    sequence, position : int64 (n,)
        Row of the table, nucleotide within it.
    activation : float32 (n,)
    n_nucleotides : int
        Of the whole corpus.
    marker_share : float
        Share of the feature's active tokens that are codon markers (and so not among the firings); NaN when
        it is never active.
    """

    sequence: Int[np.ndarray, " n"]
    position: Int[np.ndarray, " n"]
    activation: Float[np.ndarray, " n"]
    n_nucleotides: int
    marker_share: float

    @property
    def density(self) -> float:
        """Share of nucleotides at which the feature is active."""
        return len(self.activation) / max(1, self.n_nucleotides)


class Window(NamedTuple):
    """A stretch of sequence around an activation.

    Attributes
    ----------
    sequence : int
        Row of the table.
    sequence_id : str
    position : int
        Nucleotide (0-based) of the activation that the window is about.
    offset_from_start : int or None
        The same counted from the first nucleotide of the start codon; None where the coding region is not
        known.
    start : int
        Nucleotide that the window starts with.
    length : int
        Of the whole sequence.
    letters : str
    activation : float32 (n,)
        0 where the feature is silent.
    track : int8 (n,)
        Indices into :data:`TRACKS`.
    peak : float
        Activation at ``position``.
    """

    sequence: int
    sequence_id: str
    position: int
    offset_from_start: int | None
    start: int
    length: int
    letters: str
    activation: Float[np.ndarray, " n"]
    track: Int[np.ndarray, " n"]
    peak: float


def firings(corpus: CodedCorpus, features: Sequence[int]) -> list[Firings]:
    """Activations of some features, one pass over the codes."""
    columns = scipy.sparse.csc_array(corpus.codes[:, np.asarray(features, dtype=np.int64)])
    columns.sort_indices()
    n_nucleotides = int(corpus.is_nucleotide.sum())
    found: list[Firings] = []
    for i in range(len(features)):
        span = slice(int(columns.indptr[i]), int(columns.indptr[i + 1]))
        rows, values = columns.indices[span].astype(np.int64), columns.data[span]
        rows, values = rows[values > 0], values[values > 0]
        real = corpus.is_nucleotide[rows]
        sequence = np.searchsorted(corpus.offsets, rows[real], side="right") - 1
        share = float(1 - real.mean()) if len(real) else float("nan")
        position = corpus.nucleotide[rows[real]].astype(np.int64)
        found.append(Firings(sequence, position, values[real], n_nucleotides, share))
    return found


def top_firings(found: Firings, clusters: np.ndarray, n: int) -> Int[np.ndarray, " k"]:
    """Indices of the strongest activations, at most one for each cluster of relatives, strongest first.

    Without this rule one family of near-identical sequences would fill the list.
    """
    peaks = _peaks(found)
    peaks = peaks[np.argsort(-found.activation[peaks], kind="stable")]
    _, first = np.unique(pd.factorize(clusters)[0][found.sequence[peaks]], return_index=True)
    return peaks[np.sort(first)[:n]]


def _peaks(found: Firings) -> Int[np.ndarray, " k"]:
    """The strongest activation of each sequence, the first of equal ones: all that can be the strongest of a family."""
    if not len(found.activation):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.diff(found.sequence, prepend=-1))
    most = np.repeat(
        np.maximum.reduceat(found.activation, starts), np.diff(starts, append=len(found.activation))
    )
    highest = np.flatnonzero(found.activation == most)
    return highest[np.diff(found.sequence[highest], prepend=-1) > 0]


def sampled_firings(
    found: Firings,
    clusters: np.ndarray,
    rng: np.random.Generator,
    bands: Sequence[float] = BANDS,
    used: Int[np.ndarray, " k"] | None = None,
) -> list[tuple[float, int]]:
    """One random activation from every band of quantiles, weakest band last; no family twice.

    Parameters
    ----------
    found : Firings
    clusters : array (n_sequences,)
    rng : numpy.random.Generator
    bands : sequence of float
        Lower quantiles of the bands, rising from 0.
    used : int (k,), optional
        Activations shown already; their families are not drawn again.

    Returns
    -------
    list of (lower quantile, index)
        Bands in which every family was used are left out.
    """
    if not len(found.activation):
        return []
    family = pd.factorize(clusters)[0][found.sequence]
    taken = np.zeros(int(family.max()) + 1, dtype=bool)
    taken[family[used] if used is not None else []] = True
    band = _bands(found.activation, bands)
    picked: list[tuple[float, int]] = []
    for i in reversed(range(len(bands))):
        inside = np.flatnonzero(band == i)
        free = inside[~taken[family[inside]]]
        if len(free):
            index = int(rng.choice(free))
            taken[family[index]] = True
            picked.append((bands[i], index))
    return picked


def _bands(values: Float[np.ndarray, " n"], bands: Sequence[float]) -> Int[np.ndarray, " n"]:
    """Which band of quantiles each value is in, by the middle of its rank; of equal values the first ranks lower.

    The values are sorted without keeping track of their places, which takes a tenth of the time of ranking
    them.
    """
    in_order, n = np.sort(values), len(values)
    band = np.zeros(n, dtype=np.int8)
    for low in bands[1:]:
        first = max(0, int(np.ceil(low * n - 0.5)))
        if first < n:
            edge = in_order[first]
            upper = values > edge
            equal = np.flatnonzero(values == edge)
            upper[equal[first - int(np.searchsorted(in_order, edge)) :]] = True
            band += upper
    return band


def window(corpus: CodedCorpus, found: Firings, index: int, flank: int) -> Window:
    """Cut the sequence around one activation.

    Parameters
    ----------
    corpus : CodedCorpus
    found : Firings
        Of the feature.
    index : int
        Which activation.
    flank : int
        Nucleotides shown on either side; fewer at the ends of a sequence.
    """
    row, position = int(found.sequence[index]), int(found.position[index])
    record = corpus.table.iloc[row]
    sequence = str(record["sequence"])
    start, stop = max(0, position - flank), min(len(sequence), position + flank + 1)
    here = (found.sequence == row) & (found.position >= start) & (found.position < stop)
    activation = np.zeros(stop - start, dtype=np.float32)
    activation[found.position[here] - start] = found.activation[here]
    cds_start, cds_end = _whole(record["cds_start"]), _whole(record["cds_end"])
    return Window(
        sequence=row,
        sequence_id=str(record["sequence_id"]),
        position=position,
        offset_from_start=None if cds_start is None else position - cds_start,
        start=start,
        length=len(sequence),
        letters=sequence[start:stop],
        activation=activation,
        track=region_track(sequence, cds_start, cds_end)[start:stop],
        peak=float(found.activation[index]),
    )


def region_track(sequence: str, cds_start: int | None, cds_end: int | None) -> Int[np.ndarray, " length"]:
    """What every nucleotide belongs to, as indices into :data:`TRACKS`.

    Parameters
    ----------
    sequence : str
    cds_start, cds_end : int or None
        0-based half-open; without an end the coding region runs on past the sequence.
    """
    track = np.full(len(sequence), _UNKNOWN, dtype=np.int8)
    if cds_start is None:
        return track
    end = len(sequence) if cds_end is None else cds_end
    track[:cds_start] = _UTR5
    for i in range(cds_start - 2):
        if sequence[i : i + 3] == "AUG":
            track[i : i + 3] = _UAUG
    codon = np.arange(end - cds_start) // 3
    track[cds_start:end] = np.where(codon % 2 == 0, _EVEN, _ODD)
    if end > cds_start:
        track[cds_start : cds_start + 3] = _START
    if cds_end is not None:
        if cds_end - cds_start >= 3 and sequence[cds_end - 3 : cds_end] in _STOPS:
            track[cds_end - 3 : cds_end] = _STOP
        track[cds_end:] = _UTR3
    return track


def letter_counts(
    corpus: CodedCorpus, found: Firings, chosen: Int[np.ndarray, " k"], flank: int
) -> Int[np.ndarray, "positions 4"]:
    """How often each of ACGU stands at each place around some activations; N and places beyond an end count nowhere.

    Parameters
    ----------
    corpus, found
        As in :func:`window`.
    chosen : int (k,)
        Indices of the activations.
    flank : int
        Places on either side; row ``flank`` of the result is the activation's own nucleotide.
    """
    counts = np.zeros((2 * flank + 1, len(LETTERS)), dtype=np.int64)
    sequences = corpus.table["sequence"].to_numpy(dtype=object)
    for index in chosen:
        sequence, position = str(sequences[found.sequence[index]]), int(found.position[index])
        first = max(0, position - flank)
        codes = _codes(sequence[first : position + flank + 1])
        place = np.arange(len(codes)) + first - position + flank
        np.add.at(counts, (place[codes >= 0], codes[codes >= 0]), 1)
    return counts


def background(table: pd.DataFrame) -> Float[np.ndarray, " 4"]:
    """Shares of A, C, G and U among the letters of all sequences."""
    codes = _codes("".join(table["sequence"].astype(str)))
    counts = np.bincount(codes[codes >= 0], minlength=len(LETTERS)).astype(np.float64)
    return counts / max(1.0, counts.sum())


def information(
    counts: Int[np.ndarray, "positions 4"], base: Float[np.ndarray, " 4"]
) -> Float[np.ndarray, "positions 4"]:
    """Heights of a sequence logo in bits: each letter's share times the relative entropy of the place to the background.

    A place seen fewer than ten times, or a letter that the corpus does not have, has no height. One count in
    all is added to each place in proportion to the background, so that a rare letter that happens to be
    absent does not count for much.
    """
    n = counts.sum(axis=1, keepdims=True)
    share = (counts + base) / (n + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where((share > 0) & (base > 0), share * np.log2(share / base), 0.0)
    height = share * np.maximum(terms.sum(axis=1, keepdims=True), 0.0)
    return np.where(n >= 10, height, 0.0)


def consensus(heights: Float[np.ndarray, "positions 4"], least: float = 0.25) -> str:
    """The tallest letter of each place of a logo, ``·`` where it has less than ``least`` bits; no silent ends."""
    letters = (LETTERS[int(row.argmax())] if row.sum() >= least else "·" for row in np.asarray(heights))
    return "".join(letters).strip("·")


def _codes(sequence: str) -> Int[np.ndarray, " n"]:
    """Index into :data:`LETTERS`; -1 for anything else."""
    lookup = np.full(256, -1, dtype=np.int64)
    lookup[[ord(letter) for letter in LETTERS]] = np.arange(len(LETTERS))
    return lookup[np.frombuffer(sequence.encode("ascii", errors="replace"), dtype=np.uint8)]


def _whole(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[call-overload, arg-type]
