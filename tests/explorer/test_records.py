"""What is pasted is read as it was meant, or refused by name."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import DataError
from helix_sae.explorer.records import longest_orf, make_record, pasted_records, stop_after


def test_letters_of_dna_and_rna_white_space_and_the_mark() -> None:
    one = make_record("ggc atg\n|ATG GCC TAA c", name="x")
    assert one.sequence == "GGCAUGAUGGCCUAAC"
    assert (one.cds_start, one.cds_end, one.start_from) == (6, 15, "marked")
    assert make_record("GGC|AUG", rule="none").cds_start is None
    assert make_record("GGCAUG", cds_start=3).start_from == "told"


def test_fasta_keeps_names_whatever_they_are() -> None:
    text = ">a<script> first\nACG\nUAA\n>\nACGT\n"
    assert [(r.name, r.sequence) for r in pasted_records(text)] == [
        ("a<script>", "ACGUAA"),
        ("record 2", "ACGU"),
    ]
    assert [r.sequence for r in pasted_records(" acg t ")] == ["ACGU"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no sequence"),
        ("ACGX", "letter 'X' at position 3"),
        ("A|C|G", "more than one"),
        ("ATGU", "both T and U"),
        (">one\n", "one"),
        ("ACG|U", "no codon of this sequence of 4 nt begins at position 3"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, what: str) -> None:
    with pytest.raises(DataError, match=what.replace("|", r"\|")):
        pasted_records(text)


def plain_longest_orf(sequence: str) -> int | None:
    """Every frame, read codon by codon."""
    found: list[tuple[int, int]] = []
    for start in range(len(sequence) - 2):
        if sequence[start : start + 3] != "AUG":
            continue
        end = start
        while end + 3 <= len(sequence) and (
            end == start or sequence[end - 3 : end] not in {"UAA", "UAG", "UGA"}
        ):
            end += 3
        closed = sequence[end - 3 : end] in {"UAA", "UAG", "UGA"}
        found.append((-((end if closed else len(sequence)) - start), start))
    return min(found)[1] if found else None


@given(st.text("ACGU", max_size=80))
def test_the_longest_frame_is_found(sequence: str) -> None:
    assert longest_orf(sequence) == plain_longest_orf(sequence)


def test_a_long_sequence_full_of_starts_takes_no_time() -> None:
    begin = time.process_time()
    assert longest_orf("AUG" * 60_000) == 0
    assert time.process_time() - begin < 2


def test_a_frame_without_a_stop_runs_to_the_end() -> None:
    assert stop_after("AUGGCC", 0) is None
    assert make_record("CAUGUAACAUGGCCGC", rule="find")[1:] == (
        "CAUGUAACAUGGCCGC",
        8,
        None,
        "found",
    )
