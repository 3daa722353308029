"""Reader of the JSON schema: a list of records, each with a sequence, annotations and metadata."""

from __future__ import annotations

import json
from typing import IO, cast

from helix_sae.errors import DataError
from helix_sae.mrna.readers.files import read_text
from helix_sae.mrna.records import FieldError, RawRecord, RawRecords, RejectedRecord, flatten_record
from helix_sae.mrna.values import RepeatedKey


def read_json(stream: IO[bytes], name: str) -> RawRecords:
    """Read one JSON chunk: a list of records (see :func:`~helix_sae.mrna.records.flatten_record`).

    A record with an object that names a key twice is rejected: which of the two values is meant cannot be
    known.
    """
    try:
        entries = json.loads(read_text(stream, name), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{name}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})."
        ) from error
    except (RecursionError, ValueError) as error:
        # ValueError: an integer of more digits than Python converts.
        raise DataError(f"{name}: not JSON that can be read ({error}).") from error
    if not isinstance(entries, list):
        raise DataError(
            f"{name}: the file holds no list of records but {_kind(entries)}; expected [{{...}}, ...]."
        )
    result = RawRecords([], [])
    for index, entry in enumerate(cast("list[object]", entries)):
        place = f"record {index}"
        if not isinstance(entry, dict):
            reason = str(entry) if isinstance(entry, RepeatedKey) else f"is {_kind(entry)}, not an object"
            result.rejected.append(RejectedRecord(name, place, "record", reason))
            continue
        try:
            result.records.append(RawRecord(name, place, flatten_record(cast("dict[str, object]", entry))))
        except FieldError as error:
            result.rejected.append(RejectedRecord(name, place, error.field, error.reason))
    return result


def _object(pairs: list[tuple[str, object]]) -> dict[str, object] | RepeatedKey:
    """An object; or, where it names a key twice, what says so."""
    entry = dict(pairs)
    if len(entry) == len(pairs):
        return entry
    seen: set[str] = set()
    return RepeatedKey(next(key for key, _ in pairs if key in seen or seen.add(key)))


def _kind(entry: object) -> str:
    return "an object" if isinstance(entry, RepeatedKey) else type(entry).__name__
