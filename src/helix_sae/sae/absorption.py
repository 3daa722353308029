"""Feature absorption: a general feature that falls silent where a more special one speaks (Chanin et al. 2024, arXiv:2409.14507).

Concepts are k-mers that end at a token: ``GC`` is general, ``AGC``, ``CGC``, ``GGC``, ``UGC`` are its special
cases. A linear probe on the raw activations tells where the general concept is and in which direction it
points. Its *main* features are the few that tell it best, of those that do not keep to one special case. A
token is *absorbed* when the concept is there, the probe sees it, every main feature is silent, and one other
feature along the probe's direction makes up at least 40 % of the activation's own projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from jaxtyping import Bool, Float, Int

from helix_sae.sae.probing import Sample, balanced_draw, rank_features

MIN_COSINE = 0.025
"""Cosine with the probe from which a feature counts as along it."""
MIN_SHARE = 0.4
"""Share of the activation's projection that an absorbing feature has to make up (SAEBench)."""
MIN_GAIN = 0.03
"""Gain in F1 for which one more main feature is taken (SAEBench)."""
MOST_SPECIAL = 0.9
"""A feature with more than this share of its firing on the concept inside one extension belongs to the
extension."""
_MOST_MAIN = 5


class Direction(NamedTuple):
    """A linear probe of a concept."""

    unit: Float[np.ndarray, " d_in"]
    offset: float

    def sees(self, x: Float[np.ndarray, "n d_in"]) -> Bool[np.ndarray, " n"]:
        """Tokens on its positive side."""
        return x @ self.unit > self.offset


def kmers_ending(
    letters: Int[np.ndarray, " n"], offsets: Int[np.ndarray, " n_1"], k: int
) -> Int[np.ndarray, " n"]:
    """Number of the k-mer that ends at each nucleotide, base 4 with the last letter lowest; -1 where there is none.

    Parameters
    ----------
    letters : int (n,)
        A, C, G, U as 0 to 3; -1 for others.
    offsets : int (n_sequences + 1,)
        Sequences along ``letters``; no k-mer reaches over their borders.
    k : int
    """
    position = np.arange(len(letters)) - np.repeat(offsets[:-1], np.diff(offsets))
    number = np.zeros(len(letters), dtype=np.int64)
    valid = position >= k - 1
    for back in range(k):
        shifted = np.concatenate([np.full(back, -1), letters[: len(letters) - back]])
        valid &= shifted >= 0
        number += np.maximum(shifted, 0) * 4**back
    return np.where(valid, number, -1)


def absorption(
    fitted: Sample,
    judged: Sample,
    kmers: tuple[Sequence[Int[np.ndarray, " n_fitted"]], Sequence[Int[np.ndarray, " n_judged"]]],
    decoder: Float[np.ndarray, "d_sae d_in"],
    b_dec: Float[np.ndarray, " d_in"],
    *,
    max_tokens: int = 6000,
    min_tokens: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Absorption of each k-mer by its extensions to the left.

    Parameters
    ----------
    fitted, judged : Sample
        Tokens to fit probes and choose main features on, and tokens of other clusters to count on.
    kmers : pair of sequences of int arrays
        For ``fitted`` and ``judged``: numbers of the 1-mers, 2-mers, ... up to K-mers that end at each token
        (:func:`kmers_ending`). Concepts are all of fewer than K letters.
    decoder, b_dec : float (d_sae, d_in), (d_in,)
        Of the SAE, decoder rows of unit norm.
    max_tokens, min_tokens : int
        At most so many tokens are fitted on; concepts with fewer than ``min_tokens`` tokens seen are left
        out.
    seed : int

    Returns
    -------
    DataFrame
        ``concept``, ``n_main`` (main features), ``main_features``, ``main_f1``, ``n_tokens`` (concept there
        and seen by the probe), ``silent_share`` (of those, with every main feature silent),
        ``absorption_rate``, and of the extension with the most absorbed tokens: ``absorbed_by`` (the k-mer),
        ``rate_in_it``, ``absorbing_feature``. Empty texts where nothing is absorbed. A concept without a main
        feature is told by its special cases only: its rate is NaN.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for length in range(1, len(kmers[0])):
        general = [part[length - 1] for part in kmers]
        special = kmers[1][length]
        for number in range(4**length):
            labels = [numbers == number for numbers in general]
            draw = balanced_draw(labels[0], max_tokens, rng)
            if min(labels[0].sum(), labels[1].sum()) < min_tokens:
                continue
            train, y = fitted.rows(draw), labels[0][draw]
            probe = _direction(train.activations, y)
            main, f1 = main_features(train.codes, y, kmers[0][length][draw])
            seen = np.flatnonzero(labels[1])
            seen = seen[probe.sees(judged.activations[seen])]
            if len(seen) < min_tokens:
                continue
            codes, x = judged.codes[seen], judged.activations[seen]
            silent = np.asarray(codes[:, main].sum(axis=1)).ravel() == 0
            absorber = _absorbing(codes, x - b_dec, decoder, probe.unit, main)
            absorbed = silent & (absorber >= 0)
            rate = float(absorbed.mean()) if len(main) else float("nan")
            rows.append(
                {
                    "concept": kmer_name(number, length),
                    "n_main": len(main),
                    "main_features": " ".join(map(str, main)),
                    "main_f1": f1,
                    "n_tokens": len(seen),
                    "silent_share": float(silent.mean()),
                    "absorption_rate": rate,
                    **_by_whom(absorbed, absorber, special[seen], length + 1),
                }
            )
    return pd.DataFrame(rows, columns=pd.Index(ABSORPTION_COLUMNS))


ABSORPTION_COLUMNS = (
    "concept",
    "n_main",
    "main_features",
    "main_f1",
    "n_tokens",
    "silent_share",
    "absorption_rate",
    "absorbed_by",
    "rate_in_it",
    "absorbing_feature",
)


def main_features(
    codes: scipy.sparse.csr_array, labels: Bool[np.ndarray, " n"], special: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n_main"], float]:
    """Features that tell the concept by firing: the best one, and further ones as long as F1 gains 3 points.

    Parameters
    ----------
    codes : csr_array (n, d_sae)
    labels : bool (n,)
        Where the concept is.
    special : int (n,)
        Which of its extensions each token is of; negative where none. Features of a single extension are not
        taken.

    Returns
    -------
    features : int (n_main,)
    f1 : float
        Of "any of them fires" against the labels.
    """
    candidates = rank_features(codes, labels)[:32]
    fires = codes[:, candidates].toarray() > 0
    # Main features go along with the concept: those that fire more often without it say "not it".
    fires &= fires[labels].mean(axis=0) > fires[~labels].mean(axis=0)
    fires &= _most_in_one(fires[labels], special[labels]) <= MOST_SPECIAL
    said = np.zeros(len(labels), dtype=bool)
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < _MOST_MAIN:
        scores = np.array([f1_score(labels, said | column) for column in fires.T])
        place = int(scores.argmax())
        if scores[place] < best + MIN_GAIN:
            break
        chosen.append(place)
        said |= fires[:, place]
        best = float(scores[place])
    return candidates[chosen], best


def _most_in_one(
    fires: Bool[np.ndarray, "n n_features"], special: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n_features"]:
    """Largest share of each feature's firing inside one extension."""
    total = np.maximum(1, fires.sum(axis=0))
    shares = [fires[special == value].sum(axis=0) / total for value in np.unique(special[special >= 0])]
    return np.max(shares, axis=0) if shares else np.zeros(fires.shape[1])


def f1_score(labels: Bool[np.ndarray, " n"], said: Bool[np.ndarray, " n"]) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is right."""
    right = int((labels & said).sum())
    return 2.0 * right / (int(labels.sum()) + int(said.sum())) if right else 0.0


def kmer_name(number: int, length: int) -> str:
    """Letters of a numbered k-mer."""
    return "".join("ACGU"[number // 4**back % 4] for back in reversed(range(length)))


def _direction(x: Float[np.ndarray, "n d_in"], y: Bool[np.ndarray, " n"]) -> Direction:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    scale = float(x.std()) or 1.0
    model = LogisticRegression(max_iter=300, class_weight="balanced").fit(x / scale, y)
    weight = model.coef_[0]
    size = float(np.linalg.norm(weight)) or 1.0
    return Direction(weight / size, -scale * float(model.intercept_[0]) / size)


def _absorbing(
    codes: scipy.sparse.csr_array,
    centred: Float[np.ndarray, "n d_in"],
    decoder: Float[np.ndarray, "d_sae d_in"],
    unit: Float[np.ndarray, " d_in"],
    main: Int[np.ndarray, " n_main"],
) -> Int[np.ndarray, " n"]:
    """Feature that takes the concept's place at each token, -1 for none."""
    along = decoder @ unit
    along[along < MIN_COSINE] = 0.0
    along[main] = 0.0
    shares = scipy.sparse.csr_array(codes.multiply(along[None, :]))
    largest = shares.max(axis=1).toarray().ravel()
    place = np.asarray(shares.argmax(axis=1)).ravel()
    projection = centred @ unit
    return np.where((largest > 0) & (largest >= MIN_SHARE * projection) & (projection > 0), place, -1)


def _by_whom(
    absorbed: Bool[np.ndarray, " n"],
    absorber: Int[np.ndarray, " n"],
    special: Int[np.ndarray, " n"],
    length: int,
) -> dict[str, Any]:
    inside = special[absorbed & (special >= 0)]
    if not len(inside):
        return {"absorbed_by": "", "rate_in_it": 0.0, "absorbing_feature": ""}
    numbers, counts = np.unique(inside, return_counts=True)
    most = int(numbers[counts.argmax()])
    there = special == most
    features, times = np.unique(absorber[absorbed & there], return_counts=True)
    return {
        "absorbed_by": kmer_name(most, length),
        "rate_in_it": float(absorbed[there].mean()),
        "absorbing_feature": str(features[times.argmax()]),
    }
