"""Nucleotide-level concepts against plain twins, one nucleotide at a time."""

from __future__ import annotations

import re

import mrna_oracles as oracle
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.mrna import structure
from helix_sae.mrna.annotations import annotate, annotate_table
from helix_sae.mrna.motifs import UserMotif
from helix_sae.mrna.simulator import simulate_transcripts
from helix_sae.mrna.tables import CODON_STABILITY, CODON_USAGE, GENETIC_CODE, MIRNA_SEEDS

WORDS = [
    *(
        "AUG",
        "UAA",
        "UGA",
        "UAG",
        "CUG",
        "A",
        "C",
        "G",
        "U",
        "N",
        "AUUUA",
        "UUAUUUAUA",
        "CUACCUCA",
        "UGUAGAUA",
    ),
    *(
        "AAUAAA",
        "AUUAAA",
        "AAAAAAAA",
        "UUUUUUU",
        "GGGAGGG",
        "CCCCCC",
        "GGGCGGGCGGGCGGG",
        "GCGCGCGCGC",
        "AUAUAUAUAU",
    ),
]


@st.composite
def transcripts(draw):
    """Transcripts, constructs whose CDS runs on, bare 5'UTRs, and sequences without a known CDS."""
    utr5, body, utr3 = ("".join(draw(st.lists(st.sampled_from(WORDS), max_size=12))) for _ in range(3))
    body = body[: len(body) // 3 * 3]
    match draw(st.sampled_from(["whole", "whole", "runs_on", "bare", "unknown"])):
        case "whole":
            return utr5 + body + utr3, len(utr5), len(utr5) + len(body)
        case "runs_on":
            return utr5 + body + utr3, len(utr5), None
        case "bare":
            return utr5, len(utr5), None
        case _:
            return utr5 + body + utr3, None, None


def table_of(rows):
    sequences, starts, ends = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(len(rows))],
            "sequence": sequences,
            "cds_start": pd.array(starts, dtype="Int64"),
            "cds_end": pd.array(ends, dtype="Int64"),
        }
    )


def occurrences(pattern, sequence, low=0, high=None):
    high = len(sequence) if high is None else high
    found = []
    for match in re.finditer(f"(?=({pattern}))", sequence):
        if match.start(1) >= low and match.end(1) <= high:
            found.append((match.start(1), match.end(1)))
    return found


def homopolymers(sequence, bases, shortest):
    return [m.span() for m in re.finditer("|".join(f"{b}{{{shortest},}}" for b in bases), sequence)]


def gc_windows(sequence, letters, needed):
    covered = [False] * len(sequence)
    for i in range(len(sequence) - 30):
        if sum(letter in letters for letter in sequence[i : i + 31]) >= needed:
            covered[i : i + 31] = [True] * 31
    return [m.span() for m in re.finditer("1+", "".join("01"[c] for c in covered))]


def plain_anywhere(sequence):
    """Runs of the concepts that need no coding region."""
    top = re.match("C[CU]{4,15}", sequence)
    return {
        "cap_region": [(0, min(20, len(sequence)))] if sequence else [],
        "TOP": [top.span()] if top else [],
        "CpG": occurrences("CG", sequence),
        "homopolymer_6": homopolymers(sequence, "ACGU", 6),
        "polyU_7": homopolymers(sequence, "U", 7),
        "polyA_8": [run for run in homopolymers(sequence, "A", 8) if run[1] < len(sequence)],
        "G4_like": [m.span() for m in re.finditer("G{3,}(.{1,7}?G{3,}){3}", sequence)],
        "gc_high": gc_windows(sequence, "GC", 21.7),
        "gc_low": gc_windows(sequence, "AU", 21.7),
    }


def plain_regional(sequence, start, end):
    """Runs of the concepts that need the coding region; ``end`` is None where it runs on past the sequence."""
    stop = len(sequence) if end is None else end
    cut = lambda a, b: [(max(a, 0), min(b, len(sequence)))] if min(b, len(sequence)) > max(a, 0) else []  # noqa: E731
    codons = [(i, sequence[i : i + 3]) for i in range(start, stop - 2, 3)]
    ranked = sorted(CODON_STABILITY, key=lambda c: CODON_STABILITY[c])
    share = {
        c: CODON_USAGE[c] / sum(CODON_USAGE[d] for d in CODON_USAGE if GENETIC_CODE[d] == GENETIC_CODE[c])
        for c in CODON_STABILITY
    }
    strong = (
        start >= 3
        and start + 3 < len(sequence)
        and sequence[start - 3] in "AG"
        and sequence[start + 3] == "G"
    )
    last = sequence[stop - 3 : stop] if end is not None and stop >= 3 else ""
    orfs = oracle.upstream_orfs(sequence, start)
    cognates = [(a + 3, b) for a, b in occurrences("[AG][ACGU][ACGU](?:CUG|GUG|UUG|ACG)", sequence, 0, start)]
    runs = {
        "utr5": cut(0, start),
        "cds": cut(start, stop),
        "utr3": cut(stop, len(sequence)),
        **{
            f"codon_pos_{p + 1}": [(i, i + 1) for i in range(start, stop) if (i - start) % 3 == p]
            for p in range(3)
        },
        "start_codon": [(start, start + 3)] if start + 3 <= stop else [],
        **{f"stop_{c}": [(stop - 3, stop)] if last == c else [] for c in oracle.STOPS},
        "kozak_window": cut(start - 6, start + 4),
        "kozak_strong": cut(start - 6, start + 4) if strong else [],
        "uAUG_out_of_frame": [
            (i, i + 3) for i, _, _ in oracle.upstream_augs(sequence, start) if (start - i) % 3
        ],
        "uAUG_in_frame": [
            (i, i + 3) for i, _, _ in oracle.upstream_augs(sequence, start) if (start - i) % 3 == 0
        ],
        "uORF_contained": [(a, b) for a, b, contained in orfs if contained],
        "uORF_overlapping": [(a, b) for a, b, contained in orfs if not contained],
        "near_cognate": cognates,
        "codon_optimal": [(i, i + 3) for i, c in codons if c in ranked[-20:]],
        "codon_nonoptimal": [(i, i + 3) for i, c in codons if c in ranked[:20]],
        "rare_codon": [(i, i + 3) for i, c in codons if share.get(c, 1.0) < 0.15],
        "ARE_pentamer": occurrences("AUUUA", sequence, stop),
        "ARE_nonamer": occurrences("UUAUUUA[AU][AU]", sequence, stop),
        "PUM": occurrences("UGUA[ACGU]AUA", sequence, stop),
        "PAS": occurrences("AAUAAA|AUUAAA", sequence, max(stop, len(sequence) - 50)),
        "miR_8mer": [
            run for s in MIRNA_SEEDS.values() for run in occurrences(oracle.mirna_site(s), sequence, stop)
        ],
    }
    return {name: sorted(spans) for name, spans in runs.items()}


@given(st.lists(transcripts(), min_size=1, max_size=4))
@settings(max_examples=120)
def test_every_concept_against_the_plain_twin(rows):
    found = annotate_table(table_of(rows))
    for index, (sequence, start, end) in enumerate(rows):
        expected = plain_anywhere(sequence)
        regional = {} if start is None else plain_regional(sequence, start, end)
        first, last = found.offsets[index], found.offsets[index + 1]
        for column, concept in enumerate(found.concepts):
            runs = expected.get(concept, regional.get(concept))
            assert found.known[index, column] == (runs is not None), concept
            mask = np.zeros(len(sequence), dtype=bool)
            for a, b in runs or []:
                mask[a:b] = True
            assert found.column(concept)[first:last].tolist() == mask.tolist(), concept
            if found.recall[column] == "instance":
                instances = found.instances(concept)
                here = (instances.start >= first) & (instances.start < last)
                got = [(int(a - first), int(b - first)) for a, b in np.stack(instances, axis=1)[here]]
                assert sorted(got) == (runs or []), concept


def test_the_twin_knows_every_concept():
    found = annotate_table(table_of([("ACGAUGGCCUAAACG", 3, 12)]))
    plain = plain_anywhere("ACG") | plain_regional("ACGAUGGCCUAAACG", 3, 12)
    assert set(found.concepts) == set(plain)


def test_recall_modes():
    found = annotate_table(table_of([("ACGAUGGCCUAAACG", 3, 12)]))
    mode = dict(zip(found.concepts, found.recall, strict=True))
    by_nucleotide = {name for name, value in mode.items() if value == "nucleotide"}
    assert by_nucleotide == {
        *("utr5", "cds", "utr3", "codon_pos_1", "codon_pos_2", "codon_pos_3"),
        *("codon_optimal", "codon_nonoptimal", "rare_codon", "CpG"),
    }
    assert set(found.run_concept) <= {i for i, name in enumerate(found.concepts) if mode[name] == "instance"}


def test_shapes_and_types():
    table = simulate_transcripts(20, np.random.default_rng(0)).assign(
        sequence_id=[f"t{i}" for i in range(20)]
    )
    found = annotate_table(table)
    n = int(table["sequence"].str.len().sum())
    assert found.offsets.dtype == np.int64
    assert found.offsets[-1] == n
    assert found.labels.shape == (n, len(found.concepts))
    assert found.labels.dtype == np.bool_
    assert found.known.all()
    assert found.sequence_id.tolist() == table["sequence_id"].tolist()
    phases = np.stack([found.column(f"codon_pos_{i}") for i in (1, 2, 3)]).sum(axis=0)
    assert (phases == found.column("cds")).all()
    regions = np.stack([found.column(name) for name in ("utr5", "cds", "utr3")]).sum(axis=0)
    assert (regions == 1).all()


def test_one_sequence():
    found = annotate("CCAUGCAUGGGC", 6, None, mirna_seeds={})
    assert np.flatnonzero(found["uAUG_out_of_frame"]).tolist() == [2, 3, 4]
    assert np.flatnonzero(found["start_codon"]).tolist() == [6, 7, 8]
    assert not found["miR_8mer"].any()
    assert "utr5" not in annotate("CCAUGCAUGGGC", None, None)


def test_user_motifs_by_region():
    sequence = "GGAC" + "AUGGGACUAA" + "GGACC"
    motifs = [
        UserMotif(name="m6A_any", pattern="RRACH"),
        UserMotif(name="m6A_utr5", pattern="GGAC", region="utr5"),
    ]
    found = annotate(sequence, 4, 14 - 1, motifs=motifs)
    assert np.flatnonzero(found["m6A_utr5"]).tolist() == [0, 1, 2, 3]
    assert found["m6A_any"].sum() == 15
    unknown = annotate(sequence, None, None, motifs=motifs)
    assert "m6A_utr5" not in unknown
    assert "m6A_any" in unknown


@pytest.mark.parametrize("pattern", ["", "AUX", "GG AC"])
def test_user_motifs_must_be_iupac(pattern):
    with pytest.raises(ValueError, match="motif"):
        UserMotif(name="bad", pattern=pattern)


def test_names_must_differ():
    with pytest.raises(DataError, match="'PUM' exists already"):
        annotate("ACGU", None, None, motifs=[UserMotif(name="PUM", pattern="UGUA")])


def test_intervals_as_in_bed():
    table = table_of([("ACGUACGU", None, None), ("GGGG", None, None)])
    intervals = pd.DataFrame(
        {
            "sequence_id": ["s1", "s0", "s0", "other"],
            "start": [0, 2, 3, 0],
            "end": [2, 4, 8, 5],
            "name": ["x", "x", "y", "x"],
        }
    )
    found = annotate_table(table, intervals=intervals)
    assert np.flatnonzero(found.column("x")).tolist() == [2, 3, 8, 9]
    assert np.flatnonzero(found.column("y")).tolist() == [3, 4, 5, 6, 7]
    assert np.stack(found.instances("x")).tolist() == [[2, 8], [4, 10]]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (0, 5)])
def test_intervals_must_lie_in_their_sequence(start, end):
    intervals = pd.DataFrame({"sequence_id": ["s0"], "start": [start], "end": [end], "name": ["x"]})
    with pytest.raises(DataError, match="x of s0"):
        annotate_table(table_of([("ACGU", None, None)]), intervals=intervals)


def test_intervals_need_their_columns():
    with pytest.raises(DataError, match="lacks the column"):
        annotate_table(table_of([("ACGU", None, None)]), intervals=pd.DataFrame({"sequence_id": ["s0"]}))


def test_structure_concepts():
    if not structure.viennarna_available():
        pytest.skip("ViennaRNA is not installed")
    hairpin = "GGGGGCAAAAGCCCCC"
    found = annotate("AAAA" + hairpin + "AAAAAUGAAA", 25, None, with_structure=True)
    assert np.flatnonzero(found["hairpin_loop"]).tolist() == [10, 11, 12, 13]
    assert found["paired"][4:10].all()
    assert not found["paired"][20:].any()
    assert np.flatnonzero(found["accessible_start"]).tolist() == [10, 11, 12, 13, *range(20, 30)]


def test_structure_without_viennarna(monkeypatch):
    monkeypatch.setattr(structure, "viennarna_available", lambda: False)
    with pytest.raises(ConfigurationError, match="ViennaRNA is not installed"):
        annotate("ACGU", None, None, with_structure=True)
