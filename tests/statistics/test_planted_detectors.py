"""Detectors made from each concept itself, with noise: every concept gets its own back, and no other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from helix_sae.mrna.annotations import NucleotideAnnotations, annotate_table
from helix_sae.mrna.encoding import reverse_complement
from helix_sae.mrna.tables import CODONS, MIRNA_SEEDS, STOPS
from helix_sae.statistics.concept_matching import ConceptTables, match_concepts, prepare_concepts

NOISE = 0.1
N_TRANSCRIPTS = 240


def transcripts(rng: np.random.Generator) -> pd.DataFrame:
    """Transcripts that between them hold instances of every concept, each in some of them only."""
    letters = np.array(list("ACGU"))
    sense = [codon for codon in CODONS if codon not in STOPS]

    def bases(n: int, gc: float = 0.5) -> str:
        share = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
        return "".join(rng.choice(letters, n, p=share))

    def some(*elements: str) -> str:
        return "".join(e + bases(12) for e in elements if rng.random() < 0.6)

    rows = []
    for _ in range(N_TRANSCRIPTS):
        top = "CUCUUUCC" if rng.random() < 0.5 else "A"
        utr5 = (
            top
            + "A"
            + bases(30)
            + some("GGGAGGGAGGGUGGG", "AUGGCCUAG", "CCCCCCC")
            + bases(40, gc=0.85)
            + bases(21)
        )
        cds = "AUG" + "".join(rng.choice(sense, rng.integers(30, 60))) + str(rng.choice(STOPS))
        site = reverse_complement(str(rng.choice(list(MIRNA_SEEDS.values())))) + "A"
        elements = ("UUAUUUAUA", "AUUUA", "UGUAGAUA", "UUUUUUUUC", "CAAAAAAAAAG", site)
        utr3 = bases(20) + some(*elements) + bases(40, gc=0.15)
        pas = str(rng.choice(["AAUAAA", "AUUAAA", "CCCGGG"]))
        rows.append((utr5 + cds + utr3 + pas + bases(20), len(utr5), len(utr5) + len(cds)))
    sequences, starts, ends = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "sequence_id": [f"t{i}" for i in range(len(rows))],
            "sequence": sequences,
            "cds_start": pd.array(starts, dtype="Int64"),
            "cds_end": pd.array(ends, dtype="Int64"),
        }
    )


def noisy_detectors(found: NucleotideAnnotations, rng: np.random.Generator) -> sparse.csr_array:
    """One detector a concept: a tenth of its nucleotides missed, and as many false alarms elsewhere."""
    n = int(found.offsets[-1])
    rows, columns = [], []
    for column, name in enumerate(found.concepts):
        label = found.column(name)
        inside, outside = np.flatnonzero(label), np.flatnonzero(~label)
        kept = inside[rng.random(len(inside)) >= NOISE]
        false = rng.choice(outside, min(len(outside), round(NOISE * len(inside))), replace=False)
        rows.append(np.concatenate([kept, false]))
        columns.append(np.full(len(rows[-1]), column))
    row, column = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_array(
        (rng.uniform(0.2, 1.0, len(row)).astype(np.float32), (row, column)), shape=(n, len(found.concepts))
    )


@pytest.fixture(scope="module")
def matched() -> tuple[NucleotideAnnotations, ConceptTables]:
    rng = np.random.default_rng(0)
    found = annotate_table(transcripts(rng))
    concepts = prepare_concepts(
        found.labels,
        found.concepts,
        [mode == "instance" for mode in found.recall],
        found.offsets,
        runs=(found.run_concept, found.run_start, found.run_end),
    )
    region = np.select([found.column(name) for name in ("utr5", "cds", "utr3")], [1, 2, 3])
    split = np.where(np.arange(N_TRANSCRIPTS) % 2, "validation", "discovery")
    # Shuffled, so that no order of the columns helps a detector to its concept.
    order = rng.permutation(len(found.concepts))
    codes = sparse.csr_array(noisy_detectors(found, rng)[:, order])
    tables = match_concepts({"planted": codes}, concepts, split, regions=region, n_shifts=50)
    for table in (tables.matches, tables.best):
        table["planted"] = np.asarray(found.concepts, dtype=object)[order[table["feature"]]]
    return found, tables


def test_every_concept_is_there(matched: tuple[NucleotideAnnotations, ConceptTables]) -> None:
    found, tables = matched
    assert tables.warnings.empty
    assert set(tables.best["concept"]) == set(found.concepts)


def test_each_concept_gets_its_own_detector(matched: tuple[NucleotideAnnotations, ConceptTables]) -> None:
    _, tables = matched
    wrong = tables.best[tables.best["planted"] != tables.best["concept"]]
    assert wrong.empty, wrong[["concept", "planted", "f1"]]
    low = tables.best[tables.best["f1"] < 0.85]
    assert low.empty, low[["concept", "f1", "precision", "recall"]]
    assert (tables.best["p_value"] <= 0.05).all(), tables.best[["concept", "p_value"]]


def test_each_detector_gets_its_own_concept(matched: tuple[NucleotideAnnotations, ConceptTables]) -> None:
    _, tables = matched
    best = tables.matches[tables.matches["best_concept_of_feature"]]
    wrong = best[best["planted"] != best["concept"]]
    assert len(best) == len(tables.best)
    assert wrong.empty, wrong[["concept", "planted", "discovery_f1"]]
