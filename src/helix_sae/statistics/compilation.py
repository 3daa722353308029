"""Compiling the loops of the tests ahead of the first run, which would otherwise wait twenty seconds for it.

Numba keeps what it compiled beside the modules (or in ``NUMBA_CACHE_DIR``), by the types of the arguments: a
small study with the types of a real one compiles all that a run needs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from helix_sae.statistics.associate import associate
from helix_sae.statistics.concept_matching import match_concepts, prepare_concepts

_N_SEQUENCES, _LENGTH, _N_FEATURES = 120, 10, 12


def compile_loops() -> None:
    """Associate and match a few random codes, and forget the result."""
    rng = np.random.default_rng(0)
    split = np.where(np.arange(_N_SEQUENCES) % 2, "discovery", "validation").astype(object)
    codes = _codes(rng, _N_SEQUENCES)
    associate({"site": codes}, _table(codes, rng), split, min_labels=10, min_active=2)
    n = _N_SEQUENCES * _LENGTH
    labels = (rng.random((n, 2)) < 0.2).astype(np.uint8)
    offsets = np.arange(0, n + 1, _LENGTH)
    concepts = prepare_concepts(labels, ["a", "b"], [False, True], offsets)
    match_concepts({"site": _codes(rng, n)}, concepts, split, regions=np.zeros(n, dtype=np.int64), n_shifts=2)


def _codes(rng: np.random.Generator, n: int) -> sparse.csr_array:
    """Codes as an autoencoder gives them: few, positive, float32."""
    values = np.where(rng.random((n, _N_FEATURES)) < 0.3, rng.gamma(2.0, size=(n, _N_FEATURES)), 0.0)
    return sparse.csr_array(values.astype(np.float32))


def _table(codes: sparse.csr_array, rng: np.random.Generator) -> pd.DataFrame:
    """A table with a property of each kind, one that a code tells, missing labels, relatives and two sources."""
    n = _N_SEQUENCES
    measured = np.asarray(codes[:, [0]].todense()).ravel() + rng.normal(0, 0.1, n)
    measured[:5] = np.nan
    return pd.DataFrame(
        {
            "cluster": [f"c{i // 6}" for i in range(n)],
            "source": np.where(np.arange(n) % 3, "a", "b"),
            "structural_gc_content": rng.random(n),
            "structural_length": rng.integers(40, 60, n),
            "functional_measured": measured,
            "regulatory_count": rng.integers(0, 3, n),
            "regulatory_there": rng.random(n) < 0.5,
            "functional_place": rng.choice(["x", "y", "z"], n),
        }
    )


if __name__ == "__main__":
    compile_loops()
