"""Nodes of the pretraining: what takes part in each stage, and on which clusters the network is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from helix_sae.errors import ConfigurationError
from helix_sae.pipelines.pretraining import nodes
from helix_sae.pipelines.pretraining.parameters import PretrainingParameters


def parameters(**changes: Any) -> PretrainingParameters:
    given: dict[str, Any] = {
        "architecture": {"hidden_size": 16, "head_dim": 8, "state_size": 4, "attention_heads": 2, "key_value_heads": 1, "layers": "M+M*+"},
        "training": {"steps": 3, "token_budget": 256, "warmup_steps": 1, "log_every": 1},
        "phenotypes": ["functional_mrl"],
        "min_evaluated": 10,
    }  # fmt: skip
    return PretrainingParameters.model_validate({**given, **changes})


def records(n: int = 12, seed: int = 0) -> pd.DataFrame:
    """Reporters without a stop, and transcripts of one coding region."""
    rng = np.random.default_rng(seed)
    whole = np.arange(n) % 2 == 1
    return pd.DataFrame(
        {
            "sequence_id": [f"s{i}" for i in range(n)],
            "sequence": ["".join(rng.choice(list("ACGU"), 24)) for _ in range(n)],
            "cds_start": pd.array([12] * n, "Int64"),
            "cds_end": pd.array([24 if w else None for w in whole], "Int64"),
            "source": np.where(whole, "transcripts", "reporters"),
            "cluster": [f"c{i // 4}" for i in range(n)],
            "functional_mrl": rng.normal(size=n),
        }
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"finishing": {"shares": {"transcripts": 1.5}, "training": {"steps": 1}}},
        {"finishing": {"shares": {"transcripts": -0.1}, "training": {"steps": 1}}},
        {"finishing": {"shares": {}, "training": {"steps": 1}}},
        {"training": {"steps": 0}},
        {"training": {"learning_rate": 0}},
        {"phenotypes": []},
        {"markov_order": 9},
        {"no_such": 1},
    ],
)
def test_parameters_that_cannot_be(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        parameters(**wrong)


def test_a_mixture_is_the_first_of_each_source():
    table = records()
    mixed = nodes._mixture(table, {"transcripts": 1.0, "reporters": 0.5})
    assert mixed["sequence_id"].tolist() == ["s0", "s1", "s2", "s3", "s4", "s5", "s7", "s9", "s11"]
    assert set(nodes._mixture(table, {"transcripts": 1.0})["source"]) == {"transcripts"}
    pd.testing.assert_frame_equal(nodes._mixture(table, {"transcripts": 1.0, "reporters": 1.0}), table)


@pytest.mark.parametrize(
    "shares", [{"transcript": 1.0}, {"transcripts": 0.01}, {"transcripts": 1.0, "utrs": 0.5}]
)
def test_a_mixture_of_what_is_not_there(shares: dict[str, float]):
    with pytest.raises(ConfigurationError, match=r"finishing\.shares.*reporters.*transcripts"):
        nodes._mixture(records(), shares)


def test_a_corpus_predicts_the_next_token_of_transcripts_only():
    table = records()
    corpus = nodes._corpus(table, parameters())
    assert corpus.predicts_next.tolist() == (table["source"] == "transcripts").tolist()
    assert corpus.names == ("functional_mrl",)
    np.testing.assert_array_equal(corpus.phenotypes[:, 0], table["functional_mrl"])
    assert corpus.tracks is not None
    for tokens, track in zip(corpus.tokens, corpus.tracks, strict=True):
        assert len(track) == tokens.ids.size == 24 + 4  # a marker before each codon
        assert np.isnan(track[~tokens.is_nucleotide]).all()
        assert np.isfinite(track[tokens.is_nucleotide]).all()
    plain = nodes._corpus(table, parameters(codon_markers="none"))
    assert [t.ids.size for t in plain.tokens] == [24] * len(table)


def test_clusters_are_not_split_between_fit_and_test():
    table = records(40).sample(frac=1, random_state=0)
    first = nodes._first_half_of_clusters(table)
    assert set(table["cluster"][first]).isdisjoint(table["cluster"][~first])
    assert 0 < first.sum() < len(table)


def test_two_stages_and_their_scores():
    """The second stage starts from the first, and what has too few held-out values is not scored."""
    table = records(24)
    one_stage, history = nodes.train_mini(table, parameters())
    assert history["stage"].unique().tolist() == ["main"]
    finishing = {
        "shares": {"transcripts": 1.0},
        "training": {"steps": 2, "token_budget": 256, "warmup_steps": 1, "log_every": 1},
    }
    two_stages = parameters(finishing=finishing)
    trained, history = nodes.train_mini(table, two_stages)
    assert history["stage"].unique().tolist() == ["main", "finishing"]
    weights = [t.module.state_dict()["embeddings.weight"] for t in (one_stage, trained)]
    assert not (weights[0] == weights[1]).all()
    assert abs(weights[0] - weights[1]).max() < 0.1  # it went on from there
    unseen = records(24, seed=1)
    unseen.loc[unseen["source"] == "reporters", "functional_mrl"] = np.nan
    scores = nodes.evaluate_mini(trained, table, unseen, two_stages).set_index(["measure", "records"])
    assert list(scores.index) == [
        ("bits_per_nucleotide", "transcripts"),
        ("probe_r2 functional_mrl", "transcripts"),
    ]
    n = scores.loc[("bits_per_nucleotide", "transcripts"), "n"]
    assert n == 12 * (24 - 5)  # the first five of each have no context
    r2 = scores.loc[("probe_r2 functional_mrl", "transcripts")]
    assert r2["n"] == 6
    assert np.isnan(r2["reference"])
