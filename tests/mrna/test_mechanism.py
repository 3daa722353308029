"""The noiseless formulae: against a plain twin, against known cases, and against real measurements."""

from __future__ import annotations

import math

import mrna_oracles as oracle
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_sae.errors import DataError
from helix_sae.mrna import mechanism
from helix_sae.mrna.encoding import encode
from helix_sae.mrna.mechanism import (
    CLASS_NAMES,
    AugClass,
    half_life,
    kozak_score,
    mean_ribosome_load,
    mirna_site,
    phenotypes,
    translation_efficiency,
    upstream_augs,
    utr_class,
)
from helix_sae.mrna.tables import CODON_STABILITY, CODON_USAGE, GENETIC_CODE, MIRNA_SEEDS

CODING = "AUGGGCGAA"


@st.composite
def constructs(draw):
    """A sequence rich in starts and stops, and a start position anywhere in it."""
    words = draw(
        st.lists(st.sampled_from(["AUG", "UAA", "UGA", "A", "C", "G", "U", "N", "GCCACC"]), max_size=30)
    )
    sequence = "".join(words) + draw(st.sampled_from([CODING, "", "AUG"]))
    return sequence, draw(st.integers(0, len(sequence)))


@given(st.lists(constructs(), min_size=1, max_size=5))
@settings(max_examples=150)
def test_ribosome_load_against_the_plain_twin(batch):
    sequences, starts = [s for s, _ in batch], [i for _, i in batch]
    expected = [oracle.mean_ribosome_load(s, i) for s, i in batch]
    np.testing.assert_allclose(mean_ribosome_load(sequences, starts), expected, rtol=1e-12)


@given(st.lists(constructs(), min_size=1, max_size=5))
@settings(max_examples=150)
def test_upstream_augs_against_the_plain_twin(batch):
    found = upstream_augs(encode([s for s, _ in batch]), np.array([i for _, i in batch]))
    names = {
        AugClass.OVERLAPPING: "overlapping",
        AugClass.CONTAINED: "contained",
        AugClass.IN_FRAME: "in_frame",
    }
    listed = [
        (int(record), int(position), names[AugClass(kind)], None if stop < 0 else int(stop))
        for record, position, kind, stop in zip(
            found.record, found.position, found.kind, found.stop, strict=True
        )
    ]
    expected = [(i, *aug) for i, (s, start) in enumerate(batch) for aug in oracle.upstream_augs(s, start)]
    assert listed == expected
    scores = [oracle.kozak(batch[record][0], position) for record, position, _, _ in expected]
    np.testing.assert_allclose(found.kozak, scores, atol=1e-12)


def test_a_sequence_does_not_feel_its_batch():
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGU"), 80)) for _ in range(200)]
    together = mean_ribosome_load(sequences, [70] * 200)
    alone = [mean_ribosome_load([s], [70])[0] for s in sequences]
    assert together.tolist() == alone


def test_outside_the_sequence_contributes_nothing():
    assert kozak_score(encode(["AUG"]), np.array([0]), np.array([0]))[0] == 0.0
    bare, with_coding = encode(["GCCACC"]), encode(["GCCACCAUGG"])
    first = kozak_score(bare, np.array([0]), np.array([6]))[0]
    second = kozak_score(with_coding, np.array([0]), np.array([6]))[0]
    assert second - first == pytest.approx(math.log2(0.46 / 0.25))


def test_the_consensus_is_the_best_context():
    best = kozak_score(encode(["GCCACCAUGG"]), np.array([0]), np.array([6]))[0]
    assert best == pytest.approx(mechanism.KOZAK_WEIGHTS[:, :4].max(axis=1).sum())


@pytest.mark.parametrize(
    ("utr", "name"),
    [
        ("CCCCCCCCCCCC", "none"),
        ("CCCAUGCCCCCC", "in_frame"),
        ("CCAUGCCCCCCC", "overlapping"),
        ("CCAUGCUAACCC", "overlapping"),
        ("CCAUGUAACCCC", "contained"),
        ("CAUGUAACAUGC", "overlapping"),
    ],
)
def test_classes(utr, name):
    assert CLASS_NAMES[utr_class([utr + CODING], [len(utr)])[0]] == name


def test_each_kind_of_uaug_acts_in_its_direction():
    """5'UTRs of equal composition, one uAUG each: out of frame < closed before the start < none, in frame like none."""
    utrs = {
        "none": "ACACGAUAUACCCCC",
        "overlapping": "ACACAUGAUACCCCC",
        "contained": "ACACAUGCCCUAACC",
        "in_frame": "ACCAAUAUGACCCCC",
    }
    assert {name: CLASS_NAMES[utr_class([utr + CODING], [15])[0]] for name, utr in utrs.items()} == {
        n: n for n in utrs
    }
    assert len({oracle.gc(utr) for utr in utrs.values()}) == 1
    load = {name: mean_ribosome_load([utr + CODING], [15])[0] for name, utr in utrs.items()}
    assert load["overlapping"] < load["contained"] < load["none"]
    assert abs(load["in_frame"] - load["none"]) < 0.5


def test_lengths_and_starts_are_checked():
    with pytest.raises(DataError, match="2 sequences but 1"):
        mean_ribosome_load(["AUG", "AUG"], [0])
    with pytest.raises(DataError, match="record 1: cds_start 9"):
        mean_ribosome_load(["AUG", "AUG"], [0, 9])


def plain_te(sequence, start, end):
    load, accessibility = oracle.load_and_accessibility(sequence, start)
    logs = []
    for codon in oracle.codons(sequence, start, end):
        family = [c for c in CODON_USAGE if GENETIC_CODE[c] == GENETIC_CODE[codon]]
        if GENETIC_CODE[codon] != "*" and len(family) > 1:
            logs.append(math.log(CODON_USAGE[codon] / max(CODON_USAGE[c] for c in family)))
    mean, sd = mechanism.ADAPTATION_SCALE
    z = (sum(logs) / len(logs) - mean) / sd
    return math.log(load * accessibility) + 0.2 * z - 0.1 * math.log((end - start) / 1000)


def plain_half_life(sequence, start, end):
    values = [CODON_STABILITY[c] for c in oracle.codons(sequence, start, end) if c in CODON_STABILITY]
    mean, sd = mechanism.STABILITY_SCALE
    z = (sum(values) / len(values) - mean) / sd
    utr3 = sequence[end:]
    sites = sum(oracle.count(oracle.mirna_site(seed), utr3) for seed in MIRNA_SEEDS.values())
    nonamers = min(oracle.count("UUAUUUA[AU][AU]", utr3), 4)
    length = max(len(utr3), 1)
    return mechanism.HALF_LIFE_BASE + 0.35 * z - 0.25 * nonamers - 0.15 * sites - 0.1 * math.log(length)


codon_lists = st.lists(st.sampled_from(sorted(CODON_STABILITY)), min_size=1, max_size=12)
three_utrs = st.lists(
    st.sampled_from(["UUAUUUAUU", "UUAUUUAAA", "CUACCUCA", "ACAUUCCA", "A", "C", "G", "U", "AUUUA"]),
    max_size=12,
)


@given(st.text("ACGU", max_size=20), codon_lists, three_utrs)
def test_transcript_formulae_against_the_plain_twins(utr5, body, utr3):
    coding = "AUGGCC" + "".join(body) + "UGA"
    sequence = utr5 + coding + "".join(utr3)
    start, end = len(utr5), len(utr5) + len(coding)
    te = translation_efficiency([sequence], [start], [end])
    assert te[0] == pytest.approx(plain_te(sequence, start, end), abs=1e-9)
    assert half_life([sequence], [start], [end])[0] == pytest.approx(
        plain_half_life(sequence, start, end), abs=1e-9
    )


def test_without_a_coding_end_only_the_load_is_known():
    found = phenotypes(["CCC" + CODING], [3], [-1])
    assert np.isfinite(found.mrl[0])
    assert np.isnan(found.te[0])
    assert np.isnan(found.half_life[0])


def test_mirna_site():
    assert mirna_site("GAGGUAG") == tuple(frozenset({"ACGU".index(base)}) for base in "CUACCUCA")
    with pytest.raises(DataError, match="seven letters"):
        mirna_site("GAGG")


def test_it_explains_a_real_reporter_assay(shared_data):
    """About 0.85 of the variance of 20,000 measured ribosome loads, and their means by class of 5'UTR."""
    data = pd.read_csv(shared_data / "random_5utr_mrl.csv")
    sequences = [utr.replace("T", "U") + CODING for utr in data["utr"]]
    measured = data["mrl"].to_numpy()
    predicted = mean_ribosome_load(sequences, [50] * len(data))
    assert 1 - np.var(measured - predicted) / np.var(measured) > 0.84
    assert np.corrcoef(measured, predicted)[0, 1] ** 2 > 0.84
    classes = utr_class(sequences, [50] * len(data))
    means = {name: measured[classes == i].mean() for i, name in enumerate(CLASS_NAMES)}
    expected = {"none": 7.72, "overlapping": 4.26, "contained": 5.12, "in_frame": 7.77}
    assert means == pytest.approx(expected, abs=0.06)


def test_it_predicts_single_nucleotide_variants(shared_data):
    """Differences of variants from their wild types: a correlation of about 0.6 on some 2,000 measured pairs."""
    data = pd.read_csv(shared_data / "snv_5utr_mrl.csv").drop_duplicates("utr")
    data = data[data["utr"].str.len() == 50]
    wild = data[data["utr"] == data["mother"]].set_index("utr")["mrl"]
    pairs = data[(data["utr"] != data["mother"]) & data["mother"].isin(wild.index)]
    predicted = {
        column: mean_ribosome_load([u.replace("T", "U") + CODING for u in pairs[column]], [50] * len(pairs))
        for column in ("utr", "mother")
    }
    measured = pairs["mrl"].to_numpy() - wild.loc[pairs["mother"]].to_numpy()
    assert len(pairs) > 1900
    assert np.corrcoef(measured, predicted["utr"] - predicted["mother"])[0, 1] > 0.55
