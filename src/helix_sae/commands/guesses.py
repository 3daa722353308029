"""What the columns of a file are, where there is one candidate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from helix_sae.errors import DataError

_LOOKED_AT = 500
"""Records by which columns are told apart."""
_SHORTEST = 10
_LETTERS = re.compile(r"[ACGTUNacgtun]+")
_PLACES = frozenset(
    {"sequence", "sequence_id", "cds_start", "cds_end", "reads", "cluster", "source", "mother"}
)
_COMPUTED = ("structural_", "regulatory_", "metadata_")


class Columns(NamedTuple):
    """Columns of a file by what they hold.

    Attributes
    ----------
    sequence : str or None
        The column of the sequences; None where the format names it.
    numbers : tuple of str
        Columns that a read-out could predict: numbers of more than two values.
    """

    sequence: str | None
    numbers: tuple[str, ...]


def guess_columns(
    records: Sequence[Mapping[str, object]], file: str, *, sequence: str | None = None
) -> Columns:
    """Tell which column holds the sequences, unless it is named, and which hold numbers.

    Raises
    ------
    DataError
        If several columns, or none, could be that of the sequences; it lists them and says how to name one.
    """
    looked_at = records[:_LOOKED_AT]
    names = list(dict.fromkeys(name for record in looked_at for name in record))
    values = {name: [record[name] for record in looked_at if _is_there(record.get(name))] for name in names}
    numbers = tuple(
        name
        for name in names
        if name not in _PLACES and not name.startswith(_COMPUTED) and _are_numbers(values[name])
    )
    if sequence is not None or "sequence" in names:
        return Columns(None, numbers)
    found = [name for name in names if _are_sequences(values[name])]
    if len(found) == 1:
        return Columns(found[0], numbers)
    shown = ", ".join(found or names) or "none"
    if found:
        raise DataError(f"{file}: several columns hold sequences ({shown}); name one with --sequence.")
    raise DataError(
        f"{file}: no column holds sequences (letters ACGTUN); its columns are {shown}. Name the one that does"
        " with --sequence."
    )


def _is_there(value: object) -> bool:
    return value is not None and str(value).strip() != ""


def _are_sequences(values: Sequence[object]) -> bool:
    texts = [value for value in values if isinstance(value, str)]
    if not texts or len(texts) < len(values):
        return False
    return all(_LETTERS.fullmatch(text) for text in texts) and max(map(len, texts)) >= _SHORTEST


def _are_numbers(values: Sequence[object]) -> bool:
    seen: set[float] = set()
    for value in values:
        try:
            seen.add(float(str(value)))
        except ValueError:
            return False
    return len(seen) > 2
