"""Coding regions that do not look like one, against a plain twin."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.mrna.doubts import NO_START, NO_STOP, STOP_INSIDE, coding_region_doubts

STOPS = ("UAA", "UAG", "UGA")


def plain(sequence: str, start: int | None, end: int | None) -> set[str]:
    if start is None:
        return set()
    codons = [sequence[i : i + 3] for i in range(start, (len(sequence) if end is None else end) - 2, 3)]
    found = set()
    if codons and codons[0] != "AUG":
        found.add(NO_START)
    if end is not None and not (codons and codons[-1] in STOPS):
        found.add(NO_STOP)
    if any(codon in STOPS for codon in (codons if end is None else codons[:-1])):
        found.add(STOP_INSIDE)
    return found


@st.composite
def records(draw):
    before = draw(st.text("ACGUN", max_size=5))
    codons = draw(st.lists(st.sampled_from(["AUG", "UAA", "UGA", "GCC", "ANG", "AAA"]), max_size=5))
    after = draw(st.text("ACGU", max_size=4))
    sequence = before + "".join(codons) + after
    match draw(st.sampled_from(["whole", "runs_on", "unknown"])):
        case "whole":
            return sequence, len(before), len(before) + 3 * len(codons)
        case "runs_on":
            return sequence, len(before), None
        case _:
            return sequence, None, None


@given(st.lists(records().filter(lambda r: r[0]), min_size=1, max_size=5))
def test_doubts_are_those_of_the_plain_twin(rows):
    sequences, starts, ends = zip(*rows, strict=True)
    table = pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(len(rows))],
            "sequence": sequences,
            "cds_start": pd.array(starts, dtype="Int64"),
            "cds_end": pd.array(ends, dtype="Int64"),
        }
    )
    found = coding_region_doubts(table)
    for name, row in zip(table["sequence_id"], rows, strict=True):
        assert set(found.loc[found["sequence_id"] == name, "doubt"]) == plain(*row)
    assert not found.duplicated().any()
