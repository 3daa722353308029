"""The nodes around the training: what they refuse, what they key the scratch area by, and which rows they take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from pydantic import ValidationError
from sae_toys import superposition

from helix_sae.activations import Activations, TokenRows
from helix_sae.errors import AnalysisError, DataError
from helix_sae.pipelines.sae_training import judge, nodes
from helix_sae.pipelines.sae_training.certify import certify_seeds, pool_seeds
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.pipelines.sae_training.tokens import check_enough
from helix_sae.sae import ArrayBatches, InputScaling, TokenCodes, TopKConfig, random_autoencoder, train_saes

SAES = {"saes": {"a": {"architecture": "topk", "k": 2}}, "chosen": "a"}
SITE = "layers.0.mixer"


def parameters(**more: Any) -> SaeTrainingParameters:
    return SaeTrainingParameters(**{**SAES, **more})


class Store:
    """A source of three sequences in two parts; the second sequence has a codon marker."""

    name, is_stored = "toy", True

    def __init__(self) -> None:
        self.described = {
            "fingerprint": "model",
            "sites": [SITE],
            "dtype": "float32",
            "codon_markers": "cds",
            "tokens_per_sequence": None,
        }
        self.widths = {SITE: 2}
        self.sequence_ids = ["s0", "s1", "s2"]
        self.n_tokens, self.part_sizes = np.array([3, 4, 2]), np.array([2, 1])
        self.values = np.arange(18, dtype=np.float32).reshape(9, 2)
        self.nucleotide = np.array([0, 1, 2, 0, 0, 1, 2, 0, 1])
        self.is_nucleotide = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1], dtype=bool)

    def token_rows(self, start: int, stop: int) -> TokenRows:
        rows = slice(start, stop)
        token = np.array([0, 1, 2, 0, 1, 2, 3, 0, 1])
        return TokenRows(token[rows], self.nucleotide[rows], self.is_nucleotide[rows])

    def read(self, sites: list[str], ranges: Any) -> dict[str, np.ndarray]:
        return dict.fromkeys(sites, np.concatenate([self.values[a:b] for a, b in ranges]))

    def activations(self) -> Activations:
        return Activations(self)


TABLE = pd.DataFrame(
    {
        "sequence_id": ["s2", "s0", "s1"],
        "sequence": ["GC", "ACG", "UUA"],
        "split": ["validation", "discovery", "discovery"],
    }
)


def annotations() -> SimpleNamespace:
    """Concept ``g`` is a G, on the table's own order of sequences."""
    letters = np.array(list("GCACGUUA"))
    labels = scipy.sparse.csr_array((letters == "G")[:, None])
    return SimpleNamespace(
        sequence_id=np.array(["s2", "s0", "s1"]),
        offsets=np.array([0, 2, 5, 8]),
        concepts=("g",),
        labels=labels,
    )


def test_activations_that_are_not_finite_are_named() -> None:
    store = Store()
    store.activations().check_finite()
    store.values[5, 1] = np.inf
    with pytest.raises(DataError, match=r"site layers.0.mixer .* sequence 's1', token 2 holds inf"):
        store.activations().check_finite()


def test_the_scratch_area_is_keyed_by_what_the_result_depends_on() -> None:
    scratch = {"directory": "somewhere", "every_steps": 7}

    def key(store: Store, table: pd.DataFrame = TABLE, **more: Any) -> str:
        return nodes._scratch(store.activations(), table, parameters(scratch=scratch, **more)).data_key

    kept = nodes._scratch(Store().activations(), TABLE, parameters(scratch=scratch))
    assert (kept.directory, kept.every_steps) == ("somewhere", 7)
    assert key(Store()) == kept.data_key
    other_model, other_type = Store(), Store()
    other_model.described["fingerprint"] = "another"
    other_type.described["dtype"] = "float16"
    changed = [
        key(other_model),
        key(other_type),
        key(Store(), TABLE.assign(sequence=["GC", "ACG", "UUG"])),
        key(Store(), TABLE.assign(split="discovery")),
        key(Store(), seed=1),
        key(Store(), epochs=9),
        key(Store(), batch_size=64),
    ]
    assert len({kept.data_key, *changed}) == len(changed) + 1
    assert nodes._scratch(Store().activations(), TABLE, parameters()) is None


def test_nucleotides_labels_and_kmers_belong_together() -> None:
    settings = parameters(probing={"max_nucleotides": 100, "longest_kmer": 2}).probing
    part = judge._nucleotides(Store().activations(), annotations(), TABLE, "discovery", settings)
    names = Store().activations().sequence_ids
    codes = TokenCodes(
        scipy.sparse.csr_array(np.arange(9)[:, None]),
        Store().activations().offsets,
        np.array(names, dtype=object),
        np.ones(9, dtype=bool),
    )
    sample = judge._sample(Store().activations(), codes, SITE, part)
    by_row = {
        int(row): (bool(label[0]), int(one), int(two))
        for row, label, one, two in zip(part.token_rows, part.labels, *part.kmers, strict=True)
    }
    a, c, g, u = range(4)
    assert by_row == {
        0: (False, a, -1),
        1: (False, c, 4 * a + c),
        2: (True, g, 4 * c + g),
        4: (False, u, -1),
        5: (False, u, 4 * u + u),
        6: (False, a, 4 * u + a),
    }
    np.testing.assert_array_equal(sample.codes.toarray()[:, 0], part.token_rows)
    np.testing.assert_array_equal(sample.activations, Store().values[part.token_rows])
    with pytest.raises(AnalysisError, match="test clusters"):
        judge._nucleotides(Store().activations(), annotations(), TABLE, "test", settings)


def test_means_are_those_of_the_discovery_clusters() -> None:
    means = judge._means(Store().activations(), TABLE, [SITE])
    np.testing.assert_allclose(means[SITE].numpy(), Store().values[:7].mean(axis=0))


def test_sequences_are_drawn_by_their_names_alone() -> None:
    names = [f"s{i}" for i in range(50)]
    first = judge.by_hash(names)[:10]
    kept = [name for name in judge.by_hash(names[:40]) if name in first]
    assert kept == [name for name in first if name in names[:40]]


def test_small_data_are_gone_through_as_often_as_the_steps_take() -> None:
    short = parameters(batch_size=100, min_steps=50, epochs=2)
    assert (short.n_steps(1000), short.n_epochs(1000)) == (50, 5)
    assert (short.n_steps(950), short.n_epochs(950)) == (50, 5)
    assert (short.n_steps(10_000), short.n_epochs(10_000)) == (200, 2)
    capped = parameters(batch_size=100, min_steps=50, max_steps=30)
    assert (capped.n_steps(1000), capped.n_epochs(1000)) == (30, 3)


def test_null_takes_a_configuration_away() -> None:
    given = parameters(saes={"a": {"architecture": "topk", "k": 2}, "base": None})
    assert list(given.saes) == ["a"]
    with pytest.raises(ValidationError, match="chosen is 'a'"):
        parameters(saes={"a": None, "b": {"architecture": "topk", "k": 2}})


def test_too_few_tokens_are_said_with_their_number() -> None:
    given = parameters(saes={"a": {"architecture": "relu", "expansion_factor": 0.5, "start_factor": 2}})
    check_enough(500, {SITE: 100}, given.saes, "sae_training.saes")
    with pytest.raises(DataError, match=r"has 499 tokens; a dictionary of 100 features at layers.0.mixer"):
        check_enough(499, {SITE: 100}, given.saes, "sae_training.saes")


def test_dictionaries_beyond_the_rank_of_a_site_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Four directions of equal variance in 40 dimensions, and a trace of all others."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(5000, 4)), 1e-3 * rng.normal(size=(5000, 36))], axis=1)
    wide = {"a": {"architecture": "topk", "k": 4, "expansion_factor": 1}}
    rank = nodes.warn_of_rank({SITE: x}, parameters(saes=wide))[SITE]
    assert rank.participation_ratio == pytest.approx(4, abs=0.05)
    assert rank.n_directions == 4
    assert rank.rank == 40
    metrics = nodes.with_ranks(pd.DataFrame({"site": [SITE, SITE], "l0": [1.0, 2.0]}), {SITE: rank})
    assert metrics["n_directions"].tolist() == [4, 4]
    assert metrics["participation_ratio"].tolist() == [rank.participation_ratio] * 2
    with pytest.raises(DataError, match=r"have 4 directions, and a is to have k = 5 features active"):
        nodes.warn_of_rank(
            {SITE: np.pad(x[:, :4], ((0, 0), (0, 36)))}, parameters(saes={"a": {**wide["a"], "k": 5}})
        )
    assert "a has 40 features at layers.0.mixer, whose activations have 4 directions" in caplog.text
    assert "expansion_factor to 0.5 or less" in caplog.text
    assert "k = 4 features are active at layers.0.mixer, whose activations have 4 directions" in caplog.text
    caplog.clear()
    nodes.warn_of_rank({SITE: x}, parameters(saes={"a": {**wide["a"], "k": 3, "expansion_factor": 0.5}}))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("explained", [0.49, float("nan")])
def test_too_little_explained_ends_the_run(explained: float) -> None:
    columns = {"config": "a", "seed": 0}
    good = pd.DataFrame([{**columns, "site": SITE, "explained_variance": 0.5}])
    nodes.check_explained(good, parameters())
    bad = pd.DataFrame([{**columns, "site": SITE, "explained_variance": explained}])
    with pytest.raises(AnalysisError, match=r"layers.0.mixer (0.49|nan).*sae_training.min_steps"):
        nodes.check_explained(bad, parameters())
    nodes.check_explained(bad.assign(seed=1), parameters())
    nodes.check_explained(
        bad,
        parameters(min_explained_variance=-1)
        if explained > 0
        else parameters(saes={"b": {"architecture": "relu"}}, chosen="b"),
    )


@pytest.mark.parametrize(
    "more",
    [
        {"scratch": {"directory": "s3://bucket/state"}},
        {"early_stopping": {"patience": 0}},
        {"early_stopping": {"every_fraction": 0}},
        {"precision": "float16"},
        {"probing": {"longest_kmer": 9}},
        {"chosen": "b"},
    ],
    ids=str,
)
def test_mistaken_parameters(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parameters(**more)


def test_the_first_seed_of_every_site_is_held_against_the_others() -> None:
    rng = np.random.default_rng(0)
    holdout = [
        {site: rng.normal(size=(300, 6)).astype(np.float32) for site in (SITE, "layers.2")} for _ in range(2)
    ]
    config = TopKConfig(k=2, expansion_factor=2).resolve(6)
    scaling = InputScaling(torch.zeros(6), 1.0)
    seeds = {
        site: [random_autoencoder(config, scaling, s) for s in range(n)]
        for site, n in ((SITE, 3), ("layers.2", 1))
    }
    features, summary, subspaces = certify_seeds(seeds, holdout)
    assert features.groupby("site", sort=False).size().to_dict() == {SITE: 12, "layers.2": 12}
    assert summary["n_seeds"].tolist() == [3, 1]
    assert summary["n_tokens"].tolist() == [600, 600]
    assert (features["certified"] == "unknown").all()
    assert subspaces["site"].tolist() == [SITE]
    assert seeds[SITE][0].stability is not None
    assert seeds["layers.2"][0].stability is None
    alone = certify_seeds({"layers.2": seeds["layers.2"]}, holdout)[2]
    assert alone.empty
    assert list(alone.columns) == list(subspaces.columns)


def test_what_comes_back_is_pooled_and_trained_on_in_an_order_of_its_own() -> None:
    x = superposition(9000, n_features=16, active=2)
    given = {"architecture": "relu", "l1_coefficient": 3e-3, "learning_rate": 1e-2, "expansion_factor": 3}
    wanted = parameters(saes={"a": given}, chosen="a", n_seeds=5, pooled_steps=40, batch_size=500, seed=3)
    asked: list[int] = []

    def order(seed: int) -> ArrayBatches:
        asked.append(seed)
        return ArrayBatches({SITE: x[:6000]}, 500, seed, epochs=12)

    result = train_saes(order, wanted.saes, n_seeds=5, seed=3, log_every=10**9)
    seeds = result.seeds("a")
    asked.clear()
    pooled = pool_seeds(seeds, result.scalings, order, wanted)
    assert asked == [8]  # 3 to 7 are the seeds'
    holdout = [{SITE: x[6000:].numpy()}]
    features, summary, subspaces = certify_seeds(seeds, holdout, pooled)
    assert len(features) == pooled[SITE].d_sae < seeds[SITE][0].d_sae
    assert (features["certified"] == "yes").mean() > 0.9
    assert pooled[SITE].stability is not None
    among = certify_seeds(seeds, holdout)
    assert summary["pw_mcc"].tolist() == among[1]["pw_mcc"].tolist()
    pd.testing.assert_frame_equal(subspaces, among[2])
    row = judge.judge_held_out(pooled, holdout, "pooled").iloc[0]
    assert (row["site"], row["config"], row["seed"]) == (SITE, "pooled", 0)
    assert row["explained_variance"] > 0.8

    # With fewer seeds nothing is known to come back, and where nothing does, the first seed's is used.
    few = parameters(saes={"a": given}, chosen="a", n_seeds=4, pooled_steps=40)
    assert pool_seeds({SITE: seeds[SITE][:4]}, result.scalings, order, few) == {}
    untrained = [
        random_autoencoder(TopKConfig(k=2).resolve(x.shape[1]), result.scalings[SITE], s) for s in range(5)
    ]
    assert pool_seeds({SITE: untrained}, result.scalings, order, wanted) == {}
