"""Whether other seeds learn the same features."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from helix_sae.sae.config import SaeConfig

STABLE = 0.7
"""Cosine from which a feature counts as found again (Paulo and Belrose 2025, arXiv:2501.16615)."""


def matched_cosines(
    a: Float[np.ndarray, "n_a d_in"], b: Float[np.ndarray, "n_b d_in"]
) -> Float[np.ndarray, " n"]:
    """Cosines of decoder rows matched one to one so that their sum is largest; ``n`` is the smaller number of rows."""
    unit = [rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (a, b)]
    cosine = unit[0] @ unit[1].T
    first, second = linear_sum_assignment(-cosine)
    return cosine[first, second]


def random_match(n: int, d_in: int, seed: int = 0) -> float:
    """Mean matched cosine of two random dictionaries of that size: what chance gives."""
    rng = np.random.default_rng(seed)
    return float(matched_cosines(rng.normal(size=(n, d_in)), rng.normal(size=(n, d_in))).mean())


def seed_stability(
    decoders: Mapping[tuple[str, str], Float[np.ndarray, "d_sae d_in"]], configs: Mapping[str, SaeConfig]
) -> pd.DataFrame:
    """Compare SAEs of one site whose configurations differ in their seed only.

    Parameters
    ----------
    decoders : mapping of (site, configuration) to float (d_sae, d_in)
        Decoder rows of the living features.
    configs : mapping of name to SaeConfig

    Returns
    -------
    DataFrame
        ``site``, ``config``, ``other``, ``n_matched``, ``matched_cosine`` (mean), ``share_stable`` (at least 0.7),
        ``random_cosine`` (of random dictionaries of the same size). Empty when no two configurations differ in their seed
        only.
    """
    rows: list[dict[str, Any]] = []
    for one, other in combinations(configs, 2):
        if configs[one].model_copy(update={"seed": 0}) != configs[other].model_copy(update={"seed": 0}):
            continue
        for site in dict.fromkeys(site for site, _ in decoders):
            pair = [decoders[site, name] for name in (one, other)]
            cosines = matched_cosines(pair[0], pair[1])
            rows.append(
                {
                    "site": site,
                    "config": one,
                    "other": other,
                    "n_matched": len(cosines),
                    "matched_cosine": float(cosines.mean()) if len(cosines) else float("nan"),
                    "share_stable": float((cosines >= STABLE).mean()) if len(cosines) else float("nan"),
                    "random_cosine": random_match(max(1, len(cosines)), pair[0].shape[1]),
                }
            )
    columns = ["site", "config", "other", "n_matched", "matched_cosine", "share_stable", "random_cosine"]
    return pd.DataFrame(rows, columns=pd.Index(columns))
