"""The cause matrix: planted causes are found, decoys and permuted causes are not."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, ToyChain, pair_table

from helix_sae.causal import Experiment, align_table
from helix_sae.causal.causes import (
    Contrasts,
    cause_matrix,
    cause_summary,
    contrast_table,
    contrasts,
    contrasts_of,
    families_enough,
    kinds_by_what_changes,
    permuted,
    screen_by_cause,
)
from helix_sae.errors import AnalysisError
from helix_sae.figures.causal_causes import cause_heatmap
from helix_sae.reporting.sections.causes import cause_section, certified_in_words

WIDTH, N = 6, 12
KINDS = ("first", "second", "decoy")


def planted() -> tuple[Experiment, pd.DataFrame]:
    """Edits of A to C move channel 0, of A to G channel 1, both read; of A to U channel 2, read by nobody. Shams touch 3."""
    embedding = torch.zeros(14, WIDTH)
    tokens = pair_table(1, np.random.default_rng(0))
    tokens["source_sequence"], tokens["target_sequence"] = "ACGU", "AAAA"
    ids = align_table(tokens.assign(source_cds_start=pd.NA, target_cds_start=pd.NA))[0].source.ids
    for channel, letter in enumerate(ids[1:]):
        embedding[letter, channel] = 1.0
    rng, rows = np.random.default_rng(1), []
    for kind, letter in zip(KINDS, "CGU", strict=True):
        for i in range(N):
            at = rng.permutation(20)
            target = list("A" * 20)
            for position in at[: int(rng.integers(1, 4))]:
                target[position] = letter
            rows.append(
                (f"{kind}_{i}", kind, "decoy" if kind == "decoy" else "effect", "".join(target), f"f{i}")
            )
            if kind != "decoy":
                sham = list("A" * 20)
                sham[at[5]] = "U"
                rows.append((f"sham_{kind}_{i}", kind, "sham", "".join(sham), f"f{i}"))
    table = pd.DataFrame(rows, columns=["pair_id", "kind", "role", "target_sequence", "cluster"])
    missing = pd.array([pd.NA] * len(table), "Int64")
    table = table.assign(
        source_sequence="A" * 20,
        is_sham=table["role"] == "sham",
        difference=np.where(table["role"] == "effect", 1.0, 0.0),
        split="validation",
        **{f"{side}_{name}": missing for side in ("source", "target") for name in ("cds_start", "cds_end")},
    )
    model = ToyChain(embedding, [torch.zeros_like])
    read_out = LinearReadOut(torch.tensor([5.0, 3.0, 0.0, 0.0, 0.0, 0.0]))
    exp = Experiment(model, {"layers.0": LinearDictionary(torch.eye(WIDTH))}, read_out, align_table(table))
    return exp, table


def test_each_cause_is_found_at_its_feature_and_the_decoy_nowhere():
    exp, table = planted()
    found = exp.effects("exact")
    measured = contrasts(found, table)
    assert len(measured.pairs) == 3 * N
    matrix = cause_matrix(measured, n_flips=5000)
    confirmed = set(matrix[matrix["confirmed"]][["feature", "kind"]].itertuples(index=False, name=None))
    assert confirmed == {("0", "first"), ("1", "second")}
    assert (matrix["low"] <= matrix["effect"] + 1e-12).all()
    assert len(matrix) == 3 * WIDTH
    # Of the two that carry a cause the second is not certified; channel 2, which is read by nobody, is.
    certified = {"layers.0": np.arange(WIDTH + 1) % 2 == 0}
    summary = cause_summary(exp, measured, matrix, found, certified=certified).set_index("kind")
    assert summary["n_certified"].tolist() == [1, 0, 0]
    share = ["recovered_by_certified", "recovered_by_certified_low", "recovered_by_certified_high"]
    assert summary.loc["first", share].to_numpy(dtype=float) == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)
    assert summary.loc["second", share].to_numpy(dtype=float) == pytest.approx([0.0, 0.0, 0.0], abs=1e-5)
    assert summary.loc["first", "recovered"] == pytest.approx(1.0, abs=1e-5)
    assert summary.loc["first", ["n_confirmed", "n_alone"]].tolist() == [1, 1]
    assert summary.loc["decoy", "n_confirmed"] == 0
    assert summary.loc["first", "sign_agreement"] == 1.0
    assert screen_by_cause(measured, 1)["layers.0"].tolist() == [0, 1]
    section = cause_section(matrix, summary.reset_index())
    words = " ".join(s.text for s in section.statements)
    assert "2 move the prediction for some kind and 2 for one kind alone" in words
    assert "No feature is confirmed for a decoy" in words
    assert (
        "1 of 2 true causes have a certified feature; there is none for second (only features that are not"
        in words
    )
    assert "bring about, of each predicted difference: first 100 % [100, 100] and second 0 % [0, 0]" in words
    unknown = cause_summary(exp, measured, matrix, found)
    assert unknown["recovered_by_certified"].isna().all()
    assert "not known" in certified_in_words(unknown)[0].text
    # Edits of sequences of one's own have no known sign.
    unsigned = summary.reset_index().assign(n_confirmed=0, n_certified=0, sign_agreement=np.nan)
    none = certified_in_words(unsigned)[0].text
    assert "0 of 2 true causes" in none
    assert "sign right" not in none
    assert "families show an effect from" in none
    both = {"layers.0": np.ones(WIDTH + 1, dtype=bool)}
    whole = certified_in_words(cause_summary(exp, measured, matrix, found, certified=both))
    assert whole[0].text == "Every one of the 2 true causes has a feature that is certified."
    assert cause_heatmap(matrix).axes
    assert cause_section(None, None).numbers["run"] is False


def random_contrasts(seed: int, shift: float = 0.0) -> Contrasts:
    rng = np.random.default_rng(seed)
    kinds = np.repeat(["a", "b", "c"], 20)
    pairs = pd.DataFrame(
        {
            "pair_id": [f"p{i}" for i in range(60)],
            "kind": kinds,
            "role": "effect",
            "cluster": [f"f{i % 15}" for i in range(60)],
            "difference": 1.0,
            "row": np.arange(60),
        }
    )
    values = rng.standard_t(4, size=(60, 6)) + shift * (np.arange(6) == 0) * (kinds == "a")[:, None]
    return Contrasts(pairs, [("layers.0", j) for j in range(6)], values)


def test_permuted_causes_give_false_discoveries_at_most_at_the_rate_asked_for():
    """Edits and shams exchanged at random, 200 times: of data with a strong true cause."""
    true = random_contrasts(0, shift=3.0)
    kept = contrasts_of(pd.read_csv(io.StringIO(contrast_table(true).to_csv(index=False))))
    np.testing.assert_allclose(kept.values, true.values, rtol=1e-12)
    assert kept.nodes == true.nodes
    found = cause_matrix(kept, n_flips=2000)
    assert set(found[found["confirmed"]][["feature", "kind"]].itertuples(index=False, name=None)) == {
        ("0", "a")
    }
    q, wrong = 0.05, 0
    for seed in range(200):
        wrong += bool(
            cause_matrix(permuted(true, seed), q=q, n_resamples=2000, n_flips=2000, seed=seed)[
                "confirmed"
            ].any()
        )
    # Every discovery is false here; 200 runs at a rate of .05 give more than 17 with a chance below one in a hundred.
    assert wrong <= 17


def test_the_effect_that_is_said_to_be_seen_is_seen_four_times_in_five():
    at = cause_matrix(random_contrasts(0, 3.0), n_flips=2000).set_index(["feature", "kind"])["detectable"][
        ("0", "a")
    ]
    seen = [
        cause_matrix(random_contrasts(seed, at), n_flips=2000, seed=seed).set_index(["feature", "kind"])[
            "confirmed"
        ][("0", "a")]
        for seed in range(60)
    ]
    assert 0.6 < np.mean(seen) <= 0.98


def test_variants_are_named_after_what_they_change():
    pairs = pd.DataFrame(
        [
            ("CCCCCCGCCAUGAAA", "CAUGCCGCCAUGAAA", 9, "uaug_make"),
            ("CAUGCCGCCAUGAAA", "CAUCCCGCCAUGAAA", 9, "uaug_break"),
            ("CCCCCCGCCAUGAAA", "CCCCCCUCCAUGAAA", 9, "main_kozak_down"),
            ("CCCCCCUCCAUGAAA", "CCCCCCACCAUGAAA", 9, "main_kozak_up"),
            ("CCCCCCGCCAUGAAA", "CACCCCGCCAUGAAA", 9, "gc_down"),
            ("CACCCCGCCAUGAAA", "CCCCCCGCCAUGAAA", 9, "gc_up"),
            ("CCCCCCGCCAUGAAA", "CGCCCCGCCAUGAAA", 9, "other"),
            ("CCACCCGCCAUGAAA", "CCACCCCGCCAUGAAA", 9, "gc_up"),
            ("CCAAACC", "CCAUGCC", None, "uaug_make"),
        ],
        columns=["source_sequence", "target_sequence", "source_cds_start", "expected"],
    )
    assert kinds_by_what_changes(pairs).tolist() == pairs["expected"].tolist()


def test_kinds_without_families_are_left_out_and_none_is_an_error():
    exp, table = planted()
    few = table[(table["kind"] != "second") | table["cluster"].isin(["f0", "f1"])]
    assert set(families_enough(few)["kind"]) == {"first", "decoy"}
    one = table[table["cluster"] == "f0"].reset_index(drop=True)
    found = exp.on((table["cluster"] == "f0").to_numpy()).effects("exact")
    with pytest.raises(AnalysisError, match="5 validation families"):
        cause_matrix(contrasts(found, one))
