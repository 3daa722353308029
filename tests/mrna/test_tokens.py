"""Nucleotides to tokens and back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_sae.errors import DataError
from helix_sae.models.helix.checkpoint import upstream_tokenizer
from helix_sae.mrna.tokens import PAD_ID, VOCABULARY, TokenizedSequence, pad_batch, tokenize, tokenize_table

LETTER_OF_ID = {i: letter for letter, i in VOCABULARY.items()}
SEQUENCES = st.text(alphabet="ACGUN", min_size=1, max_size=60)


@st.composite
def records(draw: st.DrawFn) -> tuple[str, int | None, int | None]:
    """A sequence with its coding region, as an mRNA table may hold it."""
    sequence = draw(SEQUENCES)
    start = draw(st.one_of(st.none(), st.integers(0, len(sequence))))
    if start is None:
        return sequence, None, None
    return sequence, start, draw(st.one_of(st.none(), st.integers(start, len(sequence))))


def text_of(tokens: TokenizedSequence) -> str:
    return "".join(LETTER_OF_ID[i] for i in tokens.ids.tolist())


def twin(sequence: str, start: int | None, end: int | None) -> str:
    """The marked text, letter by letter."""
    stop = len(sequence) if end is None else end
    return "".join(
        ("E" if start is not None and start <= i < stop and (i - start) % 3 == 0 else "") + letter
        for i, letter in enumerate(sequence)
    )


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, "GGACAUGGCUUAAAC"),
        (4, 13, "GGACEAUGEGCUEUAAAC"),
        (4, None, "GGACEAUGEGCUEUAAEAC"),
        (0, 3, "EGGACAUGGCUUAAAC"),
        (12, None, "GGACAUGGCUUAEAAC"),
        (14, None, "GGACAUGGCUUAAAEC"),
        (15, None, "GGACAUGGCUUAAAC"),
        (4, 4, "GGACAUGGCUUAAAC"),
    ],
)
def test_a_marker_stands_before_each_whole_or_partial_codon(
    start: int | None, end: int | None, expected: str
):
    assert text_of(tokenize("GGACAUGGCUUAAAC", start, end)) == expected
    assert text_of(tokenize("GGACAUGGCUUAAAC", start, end, "none")) == "GGACAUGGCUUAAAC"


@given(records())
def test_round_trip(record: tuple[str, int | None, int | None]):
    sequence = record[0]
    tokens = tokenize(*record)
    assert text_of(tokens) == twin(*record)
    assert (tokens.ids.dtype, tokens.nucleotide.dtype, tokens.is_nucleotide.dtype) == (
        np.int64,
        np.int32,
        np.bool_,
    )
    # Nucleotides come back in order, each once, and every token names the nucleotide that it is or stands before.
    assert "".join(LETTER_OF_ID[i] for i in tokens.ids[tokens.is_nucleotide].tolist()) == sequence
    assert tokens.nucleotide[tokens.is_nucleotide].tolist() == list(range(len(sequence)))
    markers = np.flatnonzero(~tokens.is_nucleotide)
    assert (tokens.ids[markers] == VOCABULARY["E"]).all()
    assert (tokens.nucleotide[markers] == tokens.nucleotide[markers + 1]).all()
    assert tokens.is_nucleotide[markers + 1].all()


@given(records())
def test_ids_are_helical_s(record: tuple[str, int | None, int | None]):
    tokenizer = upstream_tokenizer()(model_max_length=12288)
    text = twin(*record)
    theirs = tokenizer(text)["input_ids"]
    assert theirs == [*tokenize(*record).ids.tolist(), tokenizer.sep_token_id]
    assert tokenizer.pad_token_id == PAD_ID


@pytest.mark.parametrize(
    ("sequence", "letter", "position"),
    [("ACGT", "T", 3), ("aCGU", "a", 0), ("AC GU", " ", 2), ("AÉ", "É", 1), ("E", "E", 0)],
)
def test_another_letter_is_named_with_its_position(sequence: str, letter: str, position: int):
    with pytest.raises(DataError, match=f"Letter '{letter}' at position {position} "):
        tokenize(sequence)


def test_an_empty_sequence_is_refused():
    with pytest.raises(DataError, match="empty sequence"):
        tokenize("")


@given(st.text(max_size=20), st.one_of(st.none(), st.integers(0, 20)))
def test_any_text_gives_tokens_or_a_data_error(text: str, start: int | None):
    try:
        tokens = tokenize(text, None if start is None else min(start, len(text)))
    except DataError:
        assert not text or not set(text) <= set("ACGUN")
    else:
        assert set(text) <= set("ACGUN")
        assert tokens.is_nucleotide.sum() == len(text)


def test_a_table_with_missing_regions():
    table = pd.DataFrame(
        {
            "sequence": ["GGAUGC", "GGAUGC", "GGAUGC"],
            "cds_start": pd.array([2, 2, None], dtype="Int64"),
            "cds_end": pd.array([5, None, None], dtype="Int64"),
        }
    )
    assert [text_of(t) for t in tokenize_table(table)] == ["GGEAUGC", "GGEAUGEC", "GGAUGC"]
    assert [text_of(t) for t in tokenize_table(table, "none")] == ["GGAUGC"] * 3


@given(st.lists(records(), min_size=1, max_size=5))
def test_batches_are_padded_on_the_right(many: list[tuple[str, int | None, int | None]]):
    tokens = [tokenize(*record) for record in many]
    ids, is_nucleotide = pad_batch(tokens)
    assert ids.shape == is_nucleotide.shape == (len(tokens), max(t.ids.size for t in tokens))
    for row, mask, t in zip(ids, is_nucleotide, tokens, strict=True):
        n = t.ids.size
        assert row[:n].tolist() == t.ids.tolist()
        assert mask[:n].tolist() == t.is_nucleotide.tolist()
        assert (row[n:] == PAD_ID).all()
        assert not mask[n:].any()
