"""Whether an association holds in every source: effects by source, combined by random effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from helix_sae.statistics.association import associations
from helix_sae.statistics.bootstrap import random_effects, rank_biserial_error
from helix_sae.statistics.properties import Property
from helix_sae.statistics.replication import NEARLY_ONE
from helix_sae.statistics.study import Study

BoolArray = npt.NDArray[np.bool_]


def combine_sources(
    significant: pd.DataFrame,
    study: Study,
    sources: npt.NDArray[Any],
    min_labels: int,
    confidence: float,
) -> pd.DataFrame:
    """Effects within each source (discovery and validation together), combined by random effects."""
    names = [s for s in pd.unique(sources) if not pd.isna(s)]
    columns = ["site", "feature", "property", "category", "estimator"]
    chosen = significant[significant["kind"] != "categorical"].reset_index(drop=True)
    head = chosen[columns].copy()
    position = (
        chosen["property"].map({p.name: i for i, p in enumerate(study.properties)}).to_numpy(dtype=np.int64)
    )
    feature = chosen["feature"].to_numpy(dtype=np.int64)
    effects = np.full((len(names), len(chosen)), np.nan)
    errors = np.full((len(names), len(chosen)), np.nan)
    discount = chosen["design_effect"].to_numpy(dtype=np.float64)
    taken = study.discovery | study.validation
    for s, source in enumerate(names if len(names) > 1 else []):
        rows = taken & (sources == source)
        for site in study.columns:
            at = np.flatnonzero(chosen["site"].to_numpy() == site)
            tests = associations(study.columns[site], study.properties, rows)
            effect = np.clip(tests.effect[feature[at], position[at]], -NEARLY_ONE, NEARLY_ONE)
            error = _standard_errors(effect, study.properties, rows)[position[at], np.arange(len(at))]
            enough = tests.n[position[at]] >= min_labels
            effects[s, at] = np.where(enough, np.arctanh(effect), np.nan)
            errors[s, at] = np.where(enough, error * np.sqrt(discount[at]), np.nan)
    combined = random_effects(effects, errors, confidence)
    head["n_sources"] = combined.n_sources
    for name, z in (("effect", combined.effect), ("low", combined.low), ("high", combined.high)):
        head[f"combined_{name}"] = np.tanh(z)
    head["combined_p_value"] = combined.p_value
    head["tau_squared"] = combined.tau_squared
    head["i_squared"] = combined.i_squared
    for s, source in enumerate(names):
        head[f"effect[{source}]"] = np.tanh(effects[s])
    return head[head["n_sources"] >= 2].reset_index(drop=True)


def _standard_errors(
    effect: npt.NDArray[np.float64], properties: list[Property], rows: BoolArray
) -> npt.NDArray[np.float64]:
    """Standard error of each effect on Fisher's z scale, for each property; (n_properties, n_effects)."""
    errors = np.full((len(properties), len(effect)), np.nan)
    for k, property_ in enumerate(properties):
        mask = rows & ~np.isnan(property_.values)
        n = int(mask.sum())
        if property_.kind == "continuous" and n > 3:
            errors[k] = np.sqrt((1 + effect**2 / 2) / (n - 3))
        elif property_.kind == "binary":
            ones = int((property_.values[mask] == 1).sum())
            if 0 < ones < n:
                errors[k] = rank_biserial_error(effect, n - ones, ones) / (1 - effect**2)
    return errors
