"""How far features went from where they began, and how alike dictionaries are that learnt nothing.

Training that hardly turns a feature is *lazy*: what other seeds would then be compared with is the draw of
the start. And two dictionaries of a hundred directions in a hundred dimensions are somewhat alike by chance
alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.learner import SaeKey
from helix_sae.sae.metrics import SaeEvaluation
from helix_sae.sae.stability import match_of_seeds, random_match


def cosine_to_start(
    directions: Float[Tensor, "d_sae d_in"],
    start: Float[Tensor, "d_sae d_in"],
    living: Bool[np.ndarray, " d_sae"],
) -> float:
    """Mean cosine of the living features' directions with where each began: 1 if none turned; NaN if none lives."""
    cosines = torch.cosine_similarity(directions.double(), start.double(), dim=1).numpy()[living]
    return float(cosines.mean()) if cosines.size else float("nan")


def start_measures(
    saes: Mapping[SaeKey, SparseAutoencoder],
    starts: Mapping[SaeKey, Float[Tensor, "d_sae d_in"]],
    evaluations: Mapping[SaeKey, SaeEvaluation],
) -> dict[SaeKey, dict[str, float]]:
    """What to read the measures of trained autoencoders beside.

    Parameters
    ----------
    saes, starts, evaluations : mapping of SaeKey
        Autoencoders, the decoder rows that their features began with, and their held-out measures.

    Returns
    -------
    dict of SaeKey to dict
        ``start_cosine`` (:func:`cosine_to_start`); ``chance_cosine``, the mean matched cosine of two
        dictionaries of the same shape whose directions are random; ``untrained_cosine``, the same of the
        seeds' own starts, over all pairs of seeds, which is more where features start on the data. NaN
        where there is one seed.
    """
    seeds: dict[tuple[str, str], list[np.ndarray]] = {}
    for key, start in starts.items():
        seeds.setdefault(key[:2], []).append(start.numpy())
    untrained = {names: match_of_seeds(rows)["pw_mcc"] for names, rows in seeds.items()}
    measures: dict[SaeKey, dict[str, float]] = {}
    for key, evaluation in evaluations.items():
        sae, living = saes[key], evaluation.features["alive"].to_numpy(dtype=bool)
        measures[key] = {
            "start_cosine": cosine_to_start(sae.W_dec.detach(), starts[key], living),
            "chance_cosine": random_match(sae.d_sae, sae.d_in),
            "untrained_cosine": untrained[key[:2]],
        }
    return measures
