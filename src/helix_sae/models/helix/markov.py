"""A Markov model over tokens: the yardstick that a language model of sequences has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from helix_sae.mrna.tokens import VOCABULARY

_SYMBOLS = len(VOCABULARY)
_FIRST_ID = min(VOCABULARY.values())


class MarkovModel(NamedTuple):
    """Log probabilities of the next token given the ``order`` tokens before it.

    Attributes
    ----------
    log_probability : float (symbols ** order, symbols)
    order : int
    """

    log_probability: Float[np.ndarray, "contexts symbols"]
    order: int

    def nats(self, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n_scored"]:
        """Surprise of each token from the ``order``-th on, in nats."""
        contexts, targets = _contexts(ids, self.order)
        return -self.log_probability[contexts, targets]


def fit_markov(
    sequences: Sequence[Int[np.ndarray, " n"]], order: int = 5, pseudocount: float = 0.5
) -> MarkovModel:
    """Fit by counting, with a pseudocount for each token in each context.

    Parameters
    ----------
    sequences : sequence of int arrays
        Token ids; sequences no longer than ``order`` add nothing.
    order : int
        Tokens of context.
    pseudocount : float
        Added to every count.
    """
    counts = np.full(_SYMBOLS**order * _SYMBOLS, pseudocount)
    for ids in sequences:
        contexts, targets = _contexts(ids, order)
        np.add.at(counts, contexts * _SYMBOLS + targets, 1.0)
    table = counts.reshape(-1, _SYMBOLS)
    return MarkovModel(np.log(table / table.sum(axis=1, keepdims=True)), order)


def _contexts(
    ids: Int[np.ndarray, " n"], order: int
) -> tuple[Int[np.ndarray, " n_scored"], Int[np.ndarray, " n_scored"]]:
    """Context numbers and targets of each token that has a whole context."""
    symbols = ids - _FIRST_ID
    if len(symbols) <= order:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(symbols, order + 1)
    return windows[:, :-1] @ _SYMBOLS ** np.arange(order), windows[:, -1]
