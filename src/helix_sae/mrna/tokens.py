"""From nucleotides to tokens and back.

Helix-mRNA reads one token a nucleotide and, inside a coding region, an ``E`` in front of each codon. Every
row of an activation, a code or a patch belongs to one such token, so the map from tokens to nucleotides
travels with them. The tokenizer's closing ``[SEP]`` is not produced: the model is strictly causal, so the
last token changes nothing before it, and no result of this package is read there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from helix_sae.errors import DataError

CodonMarkers = Literal["cds", "none"]

PAD_ID = 1
"""Id of ``[PAD]`` (and of ``[SEP]``, which shares it in helical's tokenizer)."""

VOCABULARY: dict[str, int] = {"A": 7, "C": 8, "G": 9, "U": 10, "N": 11, "E": 12}
"""Ids of the letters, as in helical's ``CharTokenizer`` (a test compares them)."""

_UNKNOWN = -1
_ID_OF_BYTE = np.full(256, _UNKNOWN, dtype=np.int64)
for _letter, _id in VOCABULARY.items():
    if _letter != "E":
        _ID_OF_BYTE[ord(_letter)] = _id


class TokenizedSequence(NamedTuple):
    """One sequence as the model reads it.

    Attributes
    ----------
    ids : int64 (n_tokens,)
        Token ids of helical's vocabulary, without ``[SEP]``.
    nucleotide : int32 (n_tokens,)
        Index of the token's nucleotide in the sequence; for an ``E`` the nucleotide that follows it.
    is_nucleotide : bool (n_tokens,)
        False at ``E`` tokens.
    """

    ids: Int[np.ndarray, " n_tokens"]
    nucleotide: Int[np.ndarray, " n_tokens"]
    is_nucleotide: Bool[np.ndarray, " n_tokens"]


def tokenize(
    sequence: str,
    cds_start: int | None = None,
    cds_end: int | None = None,
    codon_markers: CodonMarkers = "cds",
) -> TokenizedSequence:
    """Tokenize one RNA sequence.

    Parameters
    ----------
    sequence : str
        Letters ``ACGUN``.
    cds_start, cds_end : int, optional
        Coding region, 0-based half-open. Without ``cds_start`` no codon is marked; without ``cds_end`` the
        coding region runs on past the end of the sequence, and a last partial codon is marked too.
    codon_markers : {"cds", "none"}
        Whether an ``E`` stands before each codon of the coding region.

    Raises
    ------
    DataError
        If the sequence is empty or holds another letter.
    """
    letters = np.frombuffer(sequence.encode("ascii", errors="replace"), dtype=np.uint8)
    if letters.size == 0:
        raise DataError("An empty sequence cannot be tokenized; remove the record.")
    ids = _ID_OF_BYTE[letters]
    if (ids == _UNKNOWN).any():
        position = int(np.argmax(ids == _UNKNOWN))
        raise DataError(
            f"Letter {sequence[position]!r} at position {position} is not one of ACGUN; "
            "write RNA letters (T becomes U when a file is read)."
        )
    position = np.arange(letters.size, dtype=np.int32)
    if codon_markers == "none" or cds_start is None:
        return TokenizedSequence(ids, position, np.ones(letters.size, dtype=bool))
    codon_starts = np.arange(cds_start, letters.size if cds_end is None else cds_end, 3)
    nucleotide = np.insert(position, codon_starts, codon_starts.astype(np.int32))
    marker = codon_starts + np.arange(codon_starts.size)
    is_nucleotide = np.ones(nucleotide.size, dtype=bool)
    is_nucleotide[marker] = False
    return TokenizedSequence(
        np.where(is_nucleotide, ids[nucleotide], VOCABULARY["E"]), nucleotide, is_nucleotide
    )


def tokenize_table(table: pd.DataFrame, codon_markers: CodonMarkers = "cds") -> list[TokenizedSequence]:
    """Tokenize every row of an mRNA table (columns ``sequence``, ``cds_start``, ``cds_end``; NA where unknown)."""
    columns = (table[name].tolist() for name in ("sequence", "cds_start", "cds_end"))
    return [
        tokenize(sequence, _int_or_none(start), _int_or_none(end), codon_markers)
        for sequence, start, end in zip(*columns, strict=True)
    ]


def pad_batch(
    tokens: Sequence[TokenizedSequence],
) -> tuple[Int[np.ndarray, "batch time"], Bool[np.ndarray, "batch time"]]:
    """Stack sequences, padded on the right.

    Returns
    -------
    ids : int64 (batch, time)
        Padded with :data:`PAD_ID`.
    is_nucleotide : bool (batch, time)
        False at ``E`` tokens and at padding.
    """
    longest = max(t.ids.size for t in tokens)
    ids = np.full((len(tokens), longest), PAD_ID, dtype=np.int64)
    is_nucleotide = np.zeros((len(tokens), longest), dtype=bool)
    for row, t in enumerate(tokens):
        ids[row, : t.ids.size] = t.ids
        is_nucleotide[row, : t.ids.size] = t.is_nucleotide
    return ids, is_nucleotide


def _int_or_none(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[arg-type]
