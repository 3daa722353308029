"""A read-out with what is known of its errors: an interval for each prediction, and the range that it was tried in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.causal.read_out import Probe
from helix_sae.models.contract import Model

COVERAGE = 0.95
LEAST_ERRORS = 40
"""Held-out errors that an interval needs: with fewer, its ends would be the largest errors seen."""


class CalibratedReadOut(NamedTuple):
    """A read-out and its errors on held-out sequences.

    Attributes
    ----------
    probe : Probe
    errors : float64 (n,)
        Measured value minus prediction on the held-out families of a run; empty where nothing was held out.
    tried : (float, float), optional
        Smallest and largest prediction on the sequences of the run.
    """

    probe: Probe
    errors: Float[np.ndarray, " n"] = np.empty(0)
    tried: tuple[float, float] | None = None

    def __call__(self, embedding: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        """The value read, in float64: changes are differences of two."""
        return self.probe(embedding.double())

    def interval(self, value: float) -> tuple[float, float] | None:
        """Prediction interval that holds 95 % of the values of sequences like the held-out ones; None if not known.

        The quantiles of the held-out errors around the prediction (split conformal prediction).

        References
        ----------
        Lei J et al. Distribution-free predictive inference for regression. J Am Stat Assoc. 2018;113:1094.
        """
        if self.probe.is_classifier or len(self.errors) < LEAST_ERRORS:
            return None
        tails = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
        # (n + 1) p: the next error is as likely to fall into any gap between those seen.
        low, high = np.quantile(self.errors, tails, method="weibull")
        return value + float(low), value + float(high)


def calibrated(probe: Probe, predictions: pd.DataFrame | None) -> CalibratedReadOut:
    """A read-out with its errors from the table of predictions of a run.

    Parameters
    ----------
    probe : Probe
    predictions : DataFrame, optional
        ``value, prediction, split`` and ``is_further``, as the causal analysis keeps them.
    """
    if predictions is None or predictions.empty:
        return CalibratedReadOut(probe)
    held = predictions[predictions["split"] == "validation"]
    errors = (held["value"] - held["prediction"]).to_numpy(dtype=np.float64)
    every = predictions["prediction"].to_numpy(dtype=np.float64)
    return CalibratedReadOut(probe, errors[np.isfinite(errors)], (float(every.min()), float(every.max())))


def heads_of(model: Model) -> dict[str, CalibratedReadOut]:
    """The read-outs that come with a model, by name; they say nothing of their errors."""
    head = model.head
    if head is None:
        return {}
    weight, bias = head.weight.double().cpu().numpy(), head.bias.double().cpu().numpy()
    if head.task == "classification":
        probes = [Probe.of_head(name, weight, bias, i) for i, name in enumerate(head.outputs)]
    else:
        probes = [Probe.of_head(name, weight[i], bias[i]) for i, name in enumerate(head.outputs)]
    return {probe.target: CalibratedReadOut(probe) for probe in probes}


def read_all(
    read_outs: Mapping[str, CalibratedReadOut], embedding: Float[Tensor, "n hidden"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Values of every read-out."""
    with torch.no_grad():
        return {name: one(embedding).cpu().numpy() for name, one in read_outs.items()}
