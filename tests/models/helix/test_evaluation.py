"""Scores of a pretrained network, against the same numbers worked out plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helix_twin import tiny_model, tiny_network, twin_hidden

from helix_sae.errors import ModelError
from helix_sae.models.helix.evaluation import language_score, linear_r2
from helix_sae.models.helix.heads import Heads
from helix_sae.models.helix.markov import fit_markov
from helix_sae.models.helix.model import HelixModel
from helix_sae.mrna.tokens import tokenize


def make_tokens(n: int = 5):
    rng = np.random.default_rng(1)
    return [
        tokenize("".join(rng.choice(list("ACGU"), size=size)), 4, None)
        for size in rng.integers(8, 20, size=n)
    ]


def test_language_score_equals_a_sequence_at_a_time():
    network = tiny_network("M*")
    heads = Heads(16, 14, ("functional_mrl",)).requires_grad_(False)
    model, tokens = HelixModel(network, fingerprint="tiny", heads=heads), make_tokens()
    markov = fit_markov([t.ids for t in tokens], order=3)
    ours = theirs = nucleotides = 0.0
    for t in tokens:
        hidden = twin_hidden(network, torch.from_numpy(t.ids)[None])[0]
        logits = hidden @ heads.next_token.weight.double().T
        for i in range(3, len(t.ids)):
            log_p = torch.log_softmax(logits[i - 1], dim=0)
            ours -= float(log_p[t.ids[i]]) / np.log(2)
            nucleotides += bool(t.is_nucleotide[i])
        theirs += markov.nats(t.ids).sum() / np.log(2)
    score = language_score(model, tokens, markov)
    assert score.n_nucleotides == nucleotides
    assert score.model == pytest.approx(ours / nucleotides, rel=1e-5)
    assert score.markov == pytest.approx(theirs / nucleotides, rel=1e-9)


def test_a_model_without_heads_cannot_be_scored():
    tokens = make_tokens(1)
    with pytest.raises(ModelError, match="no next-token head"):
        language_score(tiny_model("M"), tokens, fit_markov([tokens[0].ids], order=1))


def test_linear_r2_finds_a_linear_law_and_nothing_in_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)) * [1, 10, 0.1, 5]
    y = x @ [1, 0.2, -3, 0] + 2
    assert linear_r2(x[:100], y[:100], x[100:], y[100:]) > 0.999
    assert linear_r2(x[:100], rng.normal(size=100), x[100:], rng.normal(size=100)) < 0.2
