"""What a pretrained network has learned: bits a nucleotide against a Markov model, phenotypes by linear read-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from helix_sae.errors import ModelError
from helix_sae.models.helix.markov import MarkovModel
from helix_sae.models.helix.model import HelixModel
from helix_sae.mrna.tokens import TokenizedSequence


class LanguageScore(NamedTuple):
    """Cost of coding the same tokens by two models, in bits a nucleotide (markers' bits are counted in).

    Attributes
    ----------
    model, markov : float
        Total bits of all scored tokens over the number of scored nucleotides.
    n_nucleotides : int
        Scored nucleotides: those with a whole Markov context before them.
    """

    model: float
    markov: float
    n_nucleotides: int


@torch.no_grad()
def language_score(
    model: HelixModel, tokens: Sequence[TokenizedSequence], markov: MarkovModel
) -> LanguageScore:
    """Score both models on exactly the same tokens.

    Raises
    ------
    ModelError
        If the model has no next-token head.
    """
    if model.heads is None:
        raise ModelError(f"Model {model.fingerprint[:12]} has no next-token head beside its checkpoint.")
    bits_model = bits_markov = 0.0
    n_nucleotides = 0
    for index in model.batches(tokens):
        batch = [tokens[i] for i in index]
        ids, _ = model.tensors(batch)
        logits = model.heads.logits(model.hidden(ids)[:, :-1])
        nats = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        per_token = nats.view(len(batch), -1).double().cpu().numpy()
        for row, sequence in enumerate(batch):
            scored = slice(markov.order, sequence.ids.size)
            bits_model += per_token[row, markov.order - 1 : sequence.ids.size - 1].sum() / np.log(2)
            bits_markov += markov.nats(sequence.ids).sum() / np.log(2)
            n_nucleotides += int(sequence.is_nucleotide[scored].sum())
    return LanguageScore(bits_model / n_nucleotides, bits_markov / n_nucleotides, n_nucleotides)


def linear_r2(
    train_x: Float[np.ndarray, "n d"],
    train_y: Float[np.ndarray, " n"],
    test_x: Float[np.ndarray, "m d"],
    test_y: Float[np.ndarray, " m"],
) -> float:
    """Held-out R2 of a ridge read-out whose penalty is chosen by leave-one-out on the training half."""
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415 - slow to import
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-4, 4, 17)))
    return float(ridge.fit(train_x, train_y).score(test_x, test_y))
