"""What the columns of a file hold, told from their values: nucleotides, or numbers that a read-out could predict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from helix_sae.errors import DataError
from helix_sae.mrna.values import as_number, is_missing

_LOOKED_AT = 500
"""Records by which columns are told apart."""
_SHORTEST = 10
"""Letters that half of the values of a column of sequences have at least; alleles and codons have fewer."""
_LETTERS = re.compile(r"[ACGTUNacgtun]+")
_COMPUTED = ("structural_", "regulatory_", "metadata_")


def sequence_column(records: Sequence[Mapping[str, object]], file: str, taken: Collection[str] = ()) -> str:
    """The column that holds nucleotides, where it is the only one.

    Parameters
    ----------
    records : sequence of mapping
        Column to value.
    file : str
        Where they were read, for messages.
    taken : collection of str
        Columns that are something else already.

    Raises
    ------
    DataError
        If several columns, or none, could be that of the sequences; it lists them and says how to name one.
    """
    present = list(dict.fromkeys(name for record in records for name in record))
    found = [name for name in present if name not in taken and _are_sequences(_values(records, name))]
    if len(found) == 1:
        return found[0]
    example = found[0] if found else "utr"
    raise DataError(
        f"No column 'sequence' in {file}; it has: {listed(present)}."
        + (f" Several hold nucleotides: {', '.join(map(repr, found))}." if found else "")
        + f" Say which one holds the sequences: --sequence {example} for helix-sae, for kedro run"
        f" ingestion.columns.sequence={example} on the command line, or in a file of parameters"
        f" ingestion.columns: {{sequence: {example}}}."
    )


def number_columns(records: Sequence[Mapping[str, object]], taken: Collection[str] = ()) -> tuple[str, ...]:
    """Columns that a read-out could predict: numbers of more than two values that do not merely count the records.

    Parameters
    ----------
    records : sequence of mapping
        Column to value.
    taken : collection of str
        Columns that are something else already.
    """
    present = dict.fromkeys(name for record in records[:_LOOKED_AT] for name in record)
    return tuple(
        name
        for name in present
        if name not in taken and not name.startswith(_COMPUTED) and _are_measurements(_values(records, name))
    )


def commonest_class(records: Sequence[Mapping[str, object]], name: str) -> str | None:
    """The class that most records have where a column holds classes, the first by name of several; None for numbers.

    Parameters
    ----------
    records : sequence of mapping
        Column to value.
    name : str
        The column.
    """
    values = [value for record in records if not is_missing(value := record.get(name))]
    if not values or all(as_number(value) is not None for value in values):
        return None
    counted = Counter(str(value).strip() for value in values)
    return min(counted, key=lambda value: (-counted[value], value))


def listed(names: Collection[str], at_most: int = 30) -> str:
    """Names for a message, the first of them where there are many."""
    every = list(names)
    more = f" and {len(every) - at_most} more" if len(every) > at_most else ""
    return ", ".join(every[:at_most]) + more if every else "nothing"


def _values(records: Sequence[Mapping[str, object]], name: str) -> list[object]:
    """What is there of a column, in the records that are looked at."""
    return [value for record in records[:_LOOKED_AT] if not is_missing(value := record.get(name))]


def _are_sequences(values: Sequence[object]) -> bool:
    texts = [value.strip() for value in values if isinstance(value, str)]
    if not texts or len(texts) < len(values) or not all(map(_LETTERS.fullmatch, texts)):
        return False
    return 2 * sum(len(text) >= _SHORTEST for text in texts) >= len(texts)


def _are_measurements(values: Sequence[object]) -> bool:
    numbers = [number for value in values if (number := as_number(value)) is not None]
    whole = all(number.is_integer() for number in numbers)
    counts = whole and all(b - a == 1 for a, b in pairwise(numbers))
    return len(numbers) == len(values) and len(set(numbers)) > 2 and not counts
