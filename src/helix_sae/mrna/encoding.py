"""Sequences as flat byte codes: the form every vectorised function of this package works on.

A batch of sequences of any lengths is one ``uint8`` vector with offsets, so nothing is padded and a motif
search over a hundred thousand sequences is a handful of array comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from helix_sae.errors import DataError

LETTERS = "ACGUN"
A, C, G, U, N = range(5)
OUTSIDE = 5
"""Code of a position that does not exist: before the first or after the last nucleotide."""

_INVALID = 255
_CODE_OF_BYTE = np.full(256, _INVALID, dtype=np.uint8)
for _code, _letter in enumerate(LETTERS):
    _CODE_OF_BYTE[ord(_letter)] = _code
_CODE_OF_BYTE[ord("T")] = U
_BYTE_OF_CODE = np.frombuffer(LETTERS.encode("ascii"), dtype=np.uint8)

IUPAC: Mapping[str, str] = MappingProxyType(
    {
        "A": "A", "C": "C", "G": "G", "U": "U", "T": "U",
        "R": "AG", "Y": "CU", "S": "CG", "W": "AU", "K": "GU", "M": "AC",
        "B": "CGU", "D": "AGU", "H": "ACU", "V": "ACG", "N": "ACGU",
    }
)  # fmt: skip
"""Nucleotides that each IUPAC letter stands for."""

Motif = tuple[frozenset[int], ...]
"""Nucleotide codes allowed at each position, from :func:`parse_motif`."""

BoolArray = Bool[np.ndarray, "..."]
CodeArray = UInt8[np.ndarray, "..."]


class FlatSequences(NamedTuple):
    """A batch of encoded sequences laid end to end.

    Attributes
    ----------
    codes : (n_nucleotides,) uint8
        0..3 for ``ACGU``, 4 for ``N``.
    offsets : (n_sequences + 1,) int64
        Sequence ``i`` is ``codes[offsets[i]:offsets[i + 1]]``.
    """

    codes: UInt8[np.ndarray, " n_nucleotides"]
    offsets: Int[np.ndarray, " n_sequences_plus_1"]

    @property
    def lengths(self) -> Int[np.ndarray, " n_sequences"]:
        """Length of every sequence, in nucleotides."""
        return np.diff(self.offsets)

    @property
    def record(self) -> Int[np.ndarray, " n_nucleotides"]:
        """Index of the sequence that each nucleotide belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    @property
    def position(self) -> Int[np.ndarray, " n_nucleotides"]:
        """0-based position of each nucleotide within its own sequence."""
        return np.arange(len(self.codes)) - np.repeat(self.offsets[:-1], self.lengths)


def encode(sequences: Sequence[str]) -> FlatSequences:
    """Encode sequences over ``ACGUN`` (``T`` is read as ``U``).

    Parameters
    ----------
    sequences : sequence of str
        Upper-case RNA or DNA letters; an empty sequence is allowed.

    Raises
    ------
    DataError
        When a sequence holds any other letter; names the record and the position.
    """
    lengths = np.fromiter((len(s) for s in sequences), dtype=np.int64, count=len(sequences))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    text = "".join(sequences)
    try:
        codes = _CODE_OF_BYTE[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
        first_bad = int(np.argmax(codes == _INVALID)) if (codes == _INVALID).any() else -1
    except UnicodeEncodeError as error:
        codes, first_bad = np.empty(0, dtype=np.uint8), error.start
    if first_bad >= 0:
        record = int(np.searchsorted(offsets, first_bad, side="right")) - 1
        raise DataError(
            f"record {record}: letter {text[first_bad]!r} at position {first_bad - int(offsets[record])} "
            f"is not one of {LETTERS} (or T); upper-case the sequence and replace ambiguity codes by N"
        )
    return FlatSequences(codes, offsets)


def decode(flat: FlatSequences) -> list[str]:
    """Return the sequences as RNA strings (inverse of :func:`encode` up to T -> U)."""
    text = _BYTE_OF_CODE[flat.codes].tobytes().decode("ascii")
    return [text[start:stop] for start, stop in pairwise(flat.offsets.tolist())]


def parse_motif(pattern: str) -> Motif:
    """Turn an IUPAC pattern into the nucleotide codes allowed at each position.

    Parameters
    ----------
    pattern : str
        Letters of :data:`IUPAC` (upper or lower case, T as U), for example ``"UUAUUUAWW"``. ``N`` in a
        pattern is any of the four nucleotides; an ``N`` in a sequence matches nothing.

    Raises
    ------
    DataError
        When the pattern is empty or has a letter that is not IUPAC.
    """
    bad = sorted({letter for letter in pattern.upper() if letter not in IUPAC})
    if bad or not pattern:
        problem = f"has the letter(s) {', '.join(bad)}, which are not IUPAC" if bad else "is empty"
        raise DataError(f"motif {pattern!r} {problem}; use letters of {''.join(IUPAC)}")
    return tuple(frozenset(LETTERS.index(base) for base in IUPAC[letter]) for letter in pattern.upper())


def reverse_complement(sequence: str) -> str:
    """Reverse complement of an RNA sequence."""
    return sequence.translate(str.maketrans("ACGUN", "UGCAN"))[::-1]


def motif_starts(codes: CodeArray, motif: Motif) -> BoolArray:
    """Mark the positions of a flat vector at which a motif begins, sequence borders ignored.

    Notes
    -----
    A hit may run over the end of its sequence into the next one; :func:`find_motif` removes those.
    """
    hits = np.zeros(len(codes), dtype=np.bool_)
    span = len(codes) - len(motif) + 1
    if span <= 0:
        return hits
    inside = np.ones(span, dtype=np.bool_)
    for shift, allowed in enumerate(motif):
        window = codes[shift : shift + span]
        if len(allowed) == 1:
            inside &= window == next(iter(allowed))
        else:
            matches = np.zeros(OUTSIDE + 1, dtype=np.bool_)
            matches[list(allowed)] = True
            inside &= matches[window]
    hits[:span] = inside
    return hits


def find_motif(flat: FlatSequences, motif: Motif) -> Int[np.ndarray, " n_hits"]:
    """Flat indices at which a motif begins and lies wholly inside its sequence, ascending."""
    hits = np.flatnonzero(motif_starts(flat.codes, motif))
    ends = flat.offsets[np.searchsorted(flat.offsets, hits, side="right")]
    return hits[hits + len(motif) <= ends]


def count_motif(
    flat: FlatSequences, motif: Motif, start: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Occurrences (overlapping ones too) of a motif wholly inside ``[start, end)`` of each sequence."""
    hits = find_motif(flat, motif)
    record = np.searchsorted(flat.offsets, hits, side="right") - 1
    position = hits - flat.offsets[record]
    inside = (position >= start[record]) & (position + len(motif) <= end[record])
    return np.bincount(record[inside], minlength=len(flat.offsets) - 1)


def gc_fraction(
    flat: FlatSequences, start: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """GC fraction of ``[start, end)`` of each sequence.

    N counts in neither the numerator nor the denominator; NaN where no nucleotide is left.
    """
    first = flat.offsets[:-1]
    strong = np.concatenate(([0], np.cumsum((flat.codes == G) | (flat.codes == C))))
    known = np.concatenate(([0], np.cumsum(flat.codes <= U)))
    numerator = strong[first + end] - strong[first + start]
    denominator = known[first + end] - known[first + start]
    return np.divide(numerator, denominator, out=np.full(len(first), np.nan), where=denominator > 0)
