"""Simulated sequences: what is promised of them, and that they are the same each time."""

from __future__ import annotations

import mrna_oracles as oracle
import numpy as np
import pandas as pd
import pytest

from helix_sae.errors import ConfigurationError
from helix_sae.mrna import generation, mechanism
from helix_sae.mrna.encoding import FlatSequences, decode, encode
from helix_sae.mrna.simulator import REPORTER_CODING, simulate_constructs, simulate_transcripts
from helix_sae.mrna.tables import CODONS, GENETIC_CODE, STOPS


@pytest.fixture(scope="module")
def transcripts():
    return simulate_transcripts(400, np.random.default_rng(3), n_per_family=4)


def differing(a, b):
    return np.mean([x != y for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize("simulate", [simulate_constructs, simulate_transcripts])
def test_same_seed_same_table(simulate):
    first, second = (simulate(20, np.random.default_rng(7)) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert not first["sequence"].equals(simulate(20, np.random.default_rng(8))["sequence"])


def test_constructs_have_the_reporter_flank_and_the_noiseless_value():
    table = simulate_constructs(300, np.random.default_rng(0), utr_length=(25, 100), n_per_family=3)
    assert len(table) == 300
    assert table["cds_end"].isna().all()
    for row in table.itertuples():
        assert row.sequence[row.cds_start :] == REPORTER_CODING
        assert set(row.sequence) <= set("ACGU")
        assert 25 <= row.cds_start <= 100
        assert row.mrl_true == pytest.approx(oracle.mean_ribosome_load(row.sequence, row.cds_start))
    residual = table["mrl"] - table["mrl_true"]
    assert residual.std() == pytest.approx(mechanism.MRL_NOISE_SD, rel=0.15)
    assert table.groupby("family")["cds_start"].nunique().eq(1).all()


def test_uniform_constructs_are_uniform_and_the_others_rich_in_gc():
    rng = np.random.default_rng(0)
    uniform = simulate_constructs(400, rng, uniform_fraction=1.0)
    natural = simulate_constructs(400, rng, uniform_fraction=0.0)
    gc_of = lambda table: oracle.gc("".join(s[:50] for s in table["sequence"]))  # noqa: E731
    assert gc_of(uniform) == pytest.approx(0.50, abs=0.015)
    assert gc_of(natural) == pytest.approx(0.58, abs=0.03)
    has_aug = np.mean(["AUG" in s[:50] for s in natural["sequence"]])
    assert has_aug == pytest.approx(0.5, abs=0.08)


def test_transcripts_have_valid_reading_frames(transcripts):
    for row in transcripts.itertuples():
        codons = oracle.codons(row.sequence, row.cds_start, row.cds_end)
        assert (row.cds_end - row.cds_start) % 3 == 0
        assert codons[0] == "AUG"
        assert codons[-1] in STOPS
        assert not set(codons[:-1]) & set(STOPS)
        assert 41 <= len(codons) <= 121
        assert 25 <= row.cds_start <= 400
        assert 60 <= len(row.sequence) - row.cds_end <= 300


def test_transcript_phenotypes_are_those_of_the_mechanism(transcripts):
    columns = (transcripts[name].tolist() for name in ("sequence", "cds_start", "cds_end"))
    expected = mechanism.phenotypes(*columns)
    for name in ("mrl", "te", "half_life"):
        np.testing.assert_array_equal(transcripts[f"{name}_true"], getattr(expected, name))
    total = transcripts["te_true"] + transcripts["half_life_true"]
    np.testing.assert_allclose(transcripts["expression_level_true"], total)
    spread = {"mrl": 0.66, "te": 0.3, "half_life": 0.5}
    for name, sd in spread.items():
        assert (transcripts[name] - transcripts[f"{name}_true"]).std() == pytest.approx(sd, rel=0.15)


def test_family_members_differ_by_five_to_ten_percent(transcripts):
    rates = []
    for _, members in transcripts.groupby("family"):
        mother, *copies = members["sequence"]
        rates.append(np.mean([differing(mother, copy) for copy in copies]))
    assert min(rates) > 0.04
    assert max(rates) < 0.11
    assert np.mean(rates) == pytest.approx(0.075, abs=0.005)


def test_upstream_fraction_and_lengths():
    table = simulate_transcripts(600, np.random.default_rng(0), n_per_family=1)
    has_aug = [
        bool(oracle.upstream_augs(s, i)) for s, i in zip(table["sequence"], table["cds_start"], strict=True)
    ]
    assert np.mean(has_aug) == pytest.approx(0.5, abs=0.06)
    assert table["cds_start"].median() == pytest.approx(120, rel=0.12)
    signal = np.mean(["AAUAAA" in s[-35:] for s in table["sequence"]])
    assert signal == pytest.approx(0.59, abs=0.08)


def test_codon_bias_follows_tau_and_the_tilt():
    n = 200
    ones, zeros = np.ones(n), np.zeros(n)
    rng = np.random.default_rng(0)
    counts = {}
    for name, tau, tilt in (("plain", ones, zeros), ("strong", 3 * ones, zeros), ("gc3", ones, 2 * ones)):
        sequences = decode(generation.coding_sequences(np.full(n, 100), tau, tilt, rng))
        codons = [c for s in sequences for c in oracle.codons(s, 0, len(s))[1:-1]]
        counts[name] = {codon: codons.count(codon) / len(codons) for codon in CODONS}
    leucine = [c for c in CODONS if GENETIC_CODE[c] == "L"]
    share = {name: found["CUG"] / sum(found[c] for c in leucine) for name, found in counts.items()}
    assert share["plain"] == pytest.approx(0.40, abs=0.03)
    assert share["strong"] > 0.8
    gc3 = {name: sum(v for c, v in found.items() if c[2] in "GC") for name, found in counts.items()}
    assert gc3["gc3"] > gc3["plain"] + 0.2
    assert all(counts["plain"][stop] == 0 for stop in STOPS)


def test_markov_sequences_have_the_asked_composition():
    lengths = np.full(300, 200)
    for gc in (0.4, 0.6):
        flat = generation.markov_sequences(lengths, np.full(300, gc), np.random.default_rng(0))
        text = "".join(decode(flat))
        assert oracle.gc(text) == pytest.approx(gc, abs=0.01)
        cpg = oracle.count("CG", text) / len(text) / (gc / 2) ** 2
        assert cpg < 0.85


def test_truncated_log_normal_keeps_its_limits_and_median():
    draws = generation.truncated_log_normal(5000, 120.0, 0.6, (25, 400), np.random.default_rng(0))
    assert draws.min() >= 25
    assert draws.max() <= 400
    assert np.median(draws) == pytest.approx(120, rel=0.05)


def test_setting_upstream_augs_leaves_the_others_alone():
    flat = encode(["CCAUGCAUGCC", "CCCCCCC", "CAUGC", "CC"])
    present = np.array([False, True, False, True])
    eligible = np.array([True, True, False, True])
    codes = generation.set_upstream_augs(flat, present, eligible, np.random.default_rng(0))
    changed = decode(FlatSequences(codes, flat.offsets))
    assert "AUG" not in changed[0]
    assert "AUG" in changed[1]
    assert changed[2:] == ["CAUGC", "CC"]


def test_join_is_sequence_by_sequence():
    joined = generation.join([encode(["A", "CC"]), encode(["", "G"]), encode(["UU", ""])])
    assert decode(joined) == ["AUU", "CCG"]


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: simulate_constructs(0, rng),
        lambda rng: simulate_constructs(5, rng, utr_length=(30, 20)),
        lambda rng: simulate_transcripts(5, rng, utr3_length=(10, 20)),
        lambda rng: simulate_transcripts(5, rng, n_per_family=0),
    ],
)
def test_impossible_requests(call):
    with pytest.raises(ConfigurationError):
        call(np.random.default_rng(0))
