"""Counterfactual pairs: each does what its kind says, its sham does nothing, and the stated difference is the true one."""

from __future__ import annotations

import mrna_oracles as oracle
import numpy as np
import pandas as pd
import pytest

from helix_sae.errors import ConfigurationError
from helix_sae.mrna import mechanism
from helix_sae.mrna.counterfactuals import (
    DECOY_KINDS,
    EFFECT_KINDS,
    PHENOTYPES,
    Edit,
    apply_edit,
    counterfactual_pairs,
)
from helix_sae.mrna.simulator import simulate_constructs, simulate_transcripts
from helix_sae.mrna.tables import GENETIC_CODE
from helix_sae.mrna.truth import truth_table

UTR_KINDS = [kind for kind in EFFECT_KINDS if kind not in ("synonymous_swap", "are_break")]
N = 12


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(5)
    return counterfactual_pairs(simulate_transcripts(150, rng), rng, n_per_kind=N)


@pytest.fixture(scope="module")
def construct_pairs():
    rng = np.random.default_rng(6)
    return counterfactual_pairs(simulate_constructs(400, rng), rng, n_per_kind=N)


def of_kind(pairs, kind, role):
    chosen = pairs[(pairs["kind"] == kind) & (pairs["role"] == role)]
    assert len(chosen)
    return list(chosen.itertuples())


def test_every_kind_is_there(pairs, construct_pairs):
    effects = pairs[pairs["role"] == "effect"]["kind"].value_counts()
    assert effects.to_dict() == dict.fromkeys(EFFECT_KINDS, N)
    assert set(pairs[pairs["role"] == "decoy"]["kind"]) == set(DECOY_KINDS)
    assert set(construct_pairs[construct_pairs["role"] == "effect"]["kind"]) == set(UTR_KINDS)
    assert pairs["pair_id"].is_unique


def test_positions_are_where_source_and_target_differ(pairs):
    for row in pairs.itertuples():
        assert len(row.source) == len(row.target)
        changed = [i for i, (a, b) in enumerate(zip(row.source, row.target, strict=True)) if a != b]
        assert sorted(row.positions) == changed


@pytest.mark.parametrize("table", ["pairs", "construct_pairs"])
def test_differences_are_the_mechanism_s(table, request):
    pairs = request.getfixturevalue(table)
    starts, ends = pairs["cds_start"].tolist(), pairs["cds_end"].fillna(-1).tolist()
    target = mechanism.phenotypes(pairs["target"].tolist(), starts, ends)
    source = mechanism.phenotypes(pairs["source"].tolist(), starts, ends)
    for name, after, before in zip(PHENOTYPES, target, source, strict=True):
        np.testing.assert_allclose(pairs[f"true_difference_{name}"], after - before, atol=1e-9)


def test_shams_and_decoys_are_exactly_zero(pairs, construct_pairs):
    columns = [f"true_difference_{name}" for name in PHENOTYPES]
    for table in (pairs, construct_pairs):
        null = table[table["role"] != "effect"]
        assert (null[columns].fillna(0.0) == 0.0).all(axis=None)
        effect = table[table["role"] == "effect"]
        assert (effect[columns].abs().max(axis=1) > 0).all()
    assert construct_pairs[["true_difference_te", "true_difference_half_life"]].isna().all(axis=None)


def test_shams_match_their_effect(pairs):
    effects = pairs[pairs["role"] == "effect"].set_index("pair_id")
    shams = pairs[pairs["role"] == "sham"]
    assert len(shams) >= 0.8 * len(effects)
    for sham in shams.itertuples():
        effect = effects.loc[sham.matched_pair]
        assert sham.source == effect["source"]
        assert sham.kind == effect["kind"]
        region = lambda i, row=sham: (i >= row.cds_start) + (i >= row.cds_end)  # noqa: E731
        assert region(sham.positions[0]) == region(effect["positions"][0])
        if len(effect["positions"]) == 1 and sham.kind != "synonymous_swap":
            i, j = effect["positions"][0], sham.positions[0]
            assert (effect["source"][i], effect["target"][i]) == (sham.source[j], sham.target[j])
    distance = [abs(s.positions[0] - effects.loc[s.matched_pair]["positions"][0]) for s in shams.itertuples()]
    assert np.median(distance) < 10


@pytest.mark.parametrize("kind", UTR_KINDS)
def test_gc_of_the_5utr_stays(pairs, construct_pairs, kind):
    for row in of_kind(pairs, kind, "effect") + of_kind(construct_pairs, kind, "effect"):
        assert oracle.gc(row.source[: row.cds_start]) == oracle.gc(row.target[: row.cds_start])


def augs(row):
    return [{a[0]: a[1] for a in oracle.upstream_augs(s, row.cds_start)} for s in (row.source, row.target)]


def test_making_and_breaking(construct_pairs):
    for row in of_kind(construct_pairs, "uaug_make", "effect"):
        before, after = augs(row)
        assert before.items() < after.items()
        assert len(after) == len(before) + 1
    for row in of_kind(construct_pairs, "uaug_break", "effect"):
        before, after = augs(row)
        assert after.items() < before.items()
        assert len(after) == len(before) - 1


def test_shifting_the_frame(construct_pairs):
    for row in of_kind(construct_pairs, "uaug_shift_frame", "effect"):
        before, after = augs(row)
        (old,), (new,) = set(before) - set(after), set(after) - set(before)
        assert abs(old - new) == 1
        assert before[old] != after[new]


def test_giving_a_stop(construct_pairs):
    for row in of_kind(construct_pairs, "uorf_give_stop", "effect"):
        before, after = augs(row)
        assert set(before) == set(after)
        changed = [i for i in before if before[i] != after[i]]
        assert changed
        assert all(after[i] == "contained" for i in changed)


def test_weakening_the_context(construct_pairs):
    for row in of_kind(construct_pairs, "uaug_kozak_minus3", "effect"):
        (position,) = row.positions
        assert row.source[position] in "AG"
        assert row.target[position] in "CU"
        assert row.source[position + 3 : position + 6] == "AUG"
    for row in of_kind(construct_pairs, "main_kozak_minus3", "effect"):
        assert row.positions == [row.cds_start - 3]
        assert row.true_difference_mrl < 0


def test_synonymous_swaps_keep_protein_and_gc3(pairs):
    for role in ("effect", "sham"):
        for row in of_kind(pairs, "synonymous_swap", role):
            before, after = (oracle.codons(s, row.cds_start, row.cds_end) for s in (row.source, row.target))
            assert [GENETIC_CODE[c] for c in before] == [GENETIC_CODE[c] for c in after]
            assert sum(c[2] in "GC" for c in before) == sum(c[2] in "GC" for c in after)
            assert (sorted(before) == sorted(after)) == (role == "sham")


def test_breaking_elements_of_the_3utr(pairs):
    for kind, role in (("are_break", "effect"), ("pentamer_break", "decoy")):
        for row in of_kind(pairs, kind, role):
            (position,) = row.positions
            assert row.source[position - 2 : position + 3] == "AUUUA"
            assert row.target[position - 2 : position + 3] == "AUCUA"
    assert all(row.true_difference_half_life > 0.2 for row in of_kind(pairs, "are_break", "effect"))


def test_same_seed_same_pairs():
    frame = simulate_constructs(60, np.random.default_rng(0))
    first, second = (counterfactual_pairs(frame, np.random.default_rng(1), n_per_kind=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_nothing_possible_gives_an_empty_table_with_its_columns():
    frame = simulate_constructs(3, np.random.default_rng(0))
    found = counterfactual_pairs(frame, np.random.default_rng(1), kinds=["are_break"])
    assert found.empty
    assert "true_difference_mrl" in found.columns


def test_unknown_kind():
    with pytest.raises(ConfigurationError, match="uaug_paint"):
        counterfactual_pairs(
            simulate_constructs(3, np.random.default_rng(0)), np.random.default_rng(0), kinds=["uaug_paint"]
        )


def test_apply_edit():
    assert apply_edit("AUGC", Edit((0, 3), "GG")) == "GUGG"


def test_truth_table_names_each_cause_once():
    table = truth_table()
    assert not table.duplicated(["cause", "phenotype"]).any()
    assert (np.sign(table["coefficient"]) == table["sign"]).all()
    assert ((table["role"] == "decoy") == (table["coefficient"] == 0)).all()
    assert set(table["phenotype"]) == {"mrl", "te", "half_life", "expression_level"}


def test_truth_table_signs_hold_in_the_pairs(construct_pairs):
    """Overlapping uAUGs and contained uORFs lower the load on average; in-frame ones hardly matter."""
    breaks = [
        (augs(row), row.true_difference_mrl) for row in of_kind(construct_pairs, "uaug_break", "effect")
    ]
    for (before, after), difference in breaks:
        if len(before) == 1 and not after:
            (kind,) = before.values()
            assert abs(difference) < 0.35 if kind == "in_frame" else difference > 0
