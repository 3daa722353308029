"""Training from nothing: it learns, it is reproducible, and it keeps to itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from helix_sae.errors import DataError
from helix_sae.models.helix.architecture import Architecture
from helix_sae.models.helix.pretraining import Corpus, Pretrained, PretrainingOptions, pretrain
from helix_sae.mrna.tokens import tokenize

ARCHITECTURE = Architecture(
    hidden_size=16, head_dim=8, state_size=4, attention_heads=2, key_value_heads=1, layers="M*+"
)
OPTIONS = PretrainingOptions(steps=6, token_budget=256, log_every=4, warmup_steps=2, seed=3)
NAMES = ("functional_mrl", "functional_te")


def make_corpus(*, tracks: bool = True, n: int = 24) -> Corpus:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGU"), size=size)) for size in rng.integers(15, 40, size=n)]
    tokens = [tokenize(text, 5, None) for text in texts]
    gc = np.array([sum(letter in "GC" for letter in text) / len(text) for text in texts])
    te = np.where(np.arange(n) % 2, np.nan, gc * 3 - 1)
    signals = [
        np.where(t.is_nucleotide[:, None], t.ids[:, None] == 7, np.nan).astype(np.float32) for t in tokens
    ]
    return Corpus(
        tokens=tokens,
        phenotypes=np.stack([7 + gc, te], axis=1),
        names=NAMES,
        predicts_next=np.arange(n) % 3 > 0,
        tracks=signals if tracks else None,
    )


def weights(trained: Pretrained) -> dict[str, torch.Tensor]:
    return {**trained.network.state_dict(), **trained.heads.state_dict()}


def same(one: Pretrained, two: Pretrained) -> bool:
    first, second = weights(one), weights(two)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    one, two = (pretrain(make_corpus(), ARCHITECTURE, OPTIONS) for _ in range(2))
    assert same(one, two)
    pd.testing.assert_frame_equal(one.history, two.history, check_exact=True)
    assert not same(one, pretrain(make_corpus(), ARCHITECTURE, OPTIONS.model_copy(update={"seed": 4})))


def test_the_process_s_random_state_is_left_alone():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is looked at
    expected = torch.rand(1), np.random.random()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    pretrain(make_corpus(), ARCHITECTURE, OPTIONS)
    assert (torch.rand(1), np.random.random()) == expected  # noqa: NPY002


def test_history_and_progress():
    done: list[tuple[int, int]] = []
    trained = pretrain(make_corpus(), ARCHITECTURE, OPTIONS, on_step=lambda *step: done.append(step))
    columns = ["step", "learning_rate", "next_token_nats", "unexplained_tracks"]
    assert trained.history.columns.tolist() == [
        *columns,
        "unexplained_functional_mrl",
        "unexplained_functional_te",
    ]
    assert trained.history["step"].tolist() == [4, 6]
    assert np.isfinite(trained.history.to_numpy()).all()
    assert done == [(i, 6) for i in range(1, 7)]
    assert not trained.network.training
    assert not trained.heads.training


def test_it_learns_what_there_is_to_learn():
    options = PretrainingOptions(steps=60, token_budget=512, log_every=30, warmup_steps=5, learning_rate=1e-2)
    history = pretrain(make_corpus(), ARCHITECTURE, options).history
    first, last = history.iloc[0], history.iloc[-1]
    assert last["unexplained_functional_mrl"] < first["unexplained_functional_mrl"]
    assert last["unexplained_tracks"] < 0.6
    assert last["next_token_nats"] < np.log(14)


def test_the_rate_warms_up_and_falls_to_zero():
    history = pretrain(make_corpus(), ARCHITECTURE, OPTIONS.model_copy(update={"log_every": 1})).history
    rate = history["learning_rate"].to_numpy()
    assert rate.max() == OPTIONS.learning_rate
    assert rate[-1] == 0
    assert (np.diff(rate)[3:] < 0).all()


def test_phenotypes_are_learned_without_tracks_and_without_next_tokens():
    corpus = make_corpus(tracks=False)._replace(predicts_next=np.zeros(24, dtype=bool))
    history = pretrain(corpus, ARCHITECTURE, OPTIONS).history
    assert history["next_token_nats"].isna().all()
    assert (history["unexplained_tracks"] == 0).all()


def test_heads_predict_in_the_phenotypes_own_units():
    heads = pretrain(make_corpus(), ARCHITECTURE, OPTIONS).heads
    assert heads.phenotypes == NAMES
    expected = make_corpus().phenotypes
    np.testing.assert_allclose(heads.phenotype_mean.numpy(), np.nanmean(expected, axis=0), rtol=1e-6)
    np.testing.assert_allclose(heads.phenotype_scale.numpy(), np.nanstd(expected, axis=0), rtol=1e-6)


def test_training_goes_on_from_where_it_was():
    begun = pretrain(make_corpus(), ARCHITECTURE, OPTIONS)
    before = {name: tensor.clone() for name, tensor in weights(begun).items()}
    gone_on = pretrain(make_corpus(), ARCHITECTURE, OPTIONS, start=begun)
    assert gone_on.network is begun.network
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(gone_on).items())


@pytest.mark.parametrize("values", [np.full(24, 5.0), np.full(24, np.nan), np.array([1.0] + [np.nan] * 23)])
def test_a_phenotype_without_spread_is_named(values: np.ndarray):
    corpus = make_corpus()
    corpus.phenotypes[:, 1] = values
    with pytest.raises(DataError, match=r"'functional_te'.*leave it out"):
        pretrain(corpus, ARCHITECTURE, OPTIONS)
