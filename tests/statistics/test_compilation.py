"""What is compiled ahead is what a study needs."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pandas as pd
from numba.core.dispatcher import Dispatcher
from scipy import sparse

import helix_sae.statistics
from helix_sae.statistics.associate import associate, calibrate
from helix_sae.statistics.compilation import compile_loops
from helix_sae.statistics.concept_matching import match_concepts, prepare_concepts, signed_halves


def compiled() -> dict[str, int]:
    """Of each compiled loop of the package, for how many types of arguments it was compiled."""
    found: dict[str, int] = {}
    for module in pkgutil.iter_modules(helix_sae.statistics.__path__, "helix_sae.statistics."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Dispatcher):
                found[f"{value.py_func.__module__}.{name}"] = len(value.signatures)
    return found


def test_a_study_after_it_compiles_nothing() -> None:
    compile_loops()
    before = compiled()
    assert before["helix_sae.statistics.bootstrap._weighted_rank_products"]
    assert before["helix_sae.statistics.design_effect._ratios"]
    rng = np.random.default_rng(1)
    n, split = 200, np.repeat(["discovery", "validation"], 100).astype(object)
    codes = {
        site: sparse.csr_array((rng.random((n, 20)) * (rng.random((n, 20)) < 0.4)).astype(np.float32))
        for site in ("a", "b")
    }
    table = pd.DataFrame(
        {
            "cluster": [f"f{i // 5}" for i in range(n)],
            "source": "one",
            "structural_length": rng.integers(30, 900, n),
            "functional_mrl": codes["a"][:, [3]].toarray().ravel() + rng.normal(0, 0.05, n),
            "regulatory_uaug_count": rng.integers(0, 4, n),
        }
    )
    associate(codes, table, split)
    calibrate(codes, table, split, n_permutations=20)
    lengths = rng.integers(5, 30, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = (rng.random((offsets[-1], 3)) < 0.1).astype(np.uint8)
    concepts = prepare_concepts(labels, ["x", "y", "z"], [True, False, False], offsets)
    rows = np.repeat(split == "discovery", lengths)
    units = signed_halves(rng.normal(size=(offsets[-1], 6)), rows)
    match_concepts({"a": units}, concepts, split, regions=labels[:, 0].astype(np.int64), best_only=True)
    assert compiled() == before
