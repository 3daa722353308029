"""Sets of nodes by learnt masks: which features to patch together, found by gradient descent on the set itself.

Every feature of every site gets a weight between 0 and 1, by which its code moves from its own value to the
target's (later sites are encoded on what arrives there, as in :mod:`helix_sae.causal.interventions`). The
weights are trained so that the read-out comes out as with everything patched, while the price of a node rises
step by step; a feature's score is the mean of its weight along the way: what is given up last counts most.
Effects of single nodes know nothing of backups and of overshooting, masks do.

References
----------
De Cao et al. 2022 and Davies et al. 2023, arXiv:2307.03637 (masks over nodes); Mueller et al. 2025,
arXiv:2504.13151 (masks beside attribution).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.causal.batches import STEPWISE_PADDING, pair_batches
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.interventions import BatchRun, all_nodes
from helix_sae.models.contract import Edit

DEFAULT_STEPS = 32
_RATE = 0.3
_PRICES = (1e-4, 3e-2)
"""Price of a node, in shares of the squared effect, at the first and at the last step."""


class LearntMasks(NamedTuple):
    """Masks and how they came about.

    Attributes
    ----------
    scores : mapping of site to float64 (features + 1,)
        Mean weight of each feature along the way, 0 to 1; 0 for the error node, which has no mask, and for
        features that do not differ in any pair.
    history : DataFrame
        ``step, price, loss`` (squared distance from the full patch's read-out, as a share of its squared
        effect) and ``n_nodes`` (sum of the weights).
    passes : float
        Runs of a sequence that the training took for each pair; a backward run counts as two.
    """

    scores: dict[str, Float[np.ndarray, " nodes"]]
    history: pd.DataFrame
    passes: float


def learn_masks(
    exp: Experiment,
    start: Mapping[str, Float[np.ndarray, " nodes"]],
    *,
    steps: int = DEFAULT_STEPS,
) -> LearntMasks:
    """Train the masks of all sites together.

    Parameters
    ----------
    exp : Experiment
        With the pairs to learn from.
    start : mapping of site to float (features + 1,)
        Scores of single nodes (:func:`helix_sae.causal.inference.attribution`): those that pull towards the
        target begin with a larger weight.
    steps : int
        Each runs all pairs forwards and backwards once.
    """
    runs = [BatchRun(exp, batch) for batch in pair_batches(exp, STEPWISE_PADDING)]
    whole = [run.patched([all_nodes(exp.widths)])[0][0] for run in runs]
    scale = sum(float((y - run.y_source).square().sum()) for y, run in zip(whole, runs, strict=True))
    logits = _logits(exp, start)
    optimiser = torch.optim.Adam(list(logits.values()), lr=_RATE, betas=(0.8, 0.95))
    total = {site: torch.zeros_like(values) for site, values in logits.items()}
    rows: list[dict[str, float]] = []
    for step, price in enumerate(np.geomspace(*_PRICES, steps)):
        optimiser.zero_grad()
        loss = 0.0
        for run, goal in zip(runs, whole, strict=True):
            weights = {site: torch.sigmoid(values) for site, values in logits.items()}
            missed = (_soft_read(run, weights) - goal).square().sum() / max(scale, 1e-30)
            missed.backward()
            loss += float(missed.detach())
        n_nodes = sum((torch.sigmoid(values).sum() for values in logits.values()), torch.zeros(()))
        (float(price) * n_nodes).backward()
        optimiser.step()
        rows.append({"step": step, "price": float(price), "loss": loss, "n_nodes": float(n_nodes.detach())})
        for site, values in logits.items():
            total[site] += torch.sigmoid(values.detach())
    idle = {site: np.logical_and.reduce([_idle(run, site) for run in runs]) for site in exp.sites}
    scores: dict[str, np.ndarray] = {}
    for site in exp.sites:
        mean = (total[site] / steps).double().cpu().numpy()
        scores[site] = np.append(np.where(idle[site], 0.0, mean), 0.0)
    # Both sides as they are and the full patch, then one run forwards and one backwards (two) a step.
    return LearntMasks(scores, pd.DataFrame(rows), 3.0 + 3.0 * steps)


def _logits(exp: Experiment, start: Mapping[str, Float[np.ndarray, " nodes"]]) -> dict[str, Tensor]:
    """Weights of a half for features without effect, more for those that help, less for those that hinder."""
    largest = max(float(np.abs(scores[:-1]).max(initial=0.0)) for scores in start.values()) or 1.0
    out: dict[str, Tensor] = {}
    for site in exp.sites:
        decoder = exp.decoders[site]
        relative = np.cbrt(np.asarray(start[site][:-1], dtype=np.float64) / largest)
        out[site] = torch.as_tensor(
            2.0 * relative, dtype=decoder.dtype, device=decoder.device
        ).requires_grad_()
    return out


def _soft_read(run: BatchRun, weights: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
    """Read-out of a batch with every feature moved by its weight, differentiable in the weights."""
    patches = {site: run.patches[site].picked(slice(None), run.source.start) for site in weights}

    def move(site: str, x: Float[Tensor, "n suffix width"]) -> Float[Tensor, "n suffix width"]:
        patch, decoder = patches[site], run.exp.decoders[site]
        codes = patch.dictionary.encode(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        change = ((patch.target_codes - codes) * weights[site]) @ decoder
        return x + change * patch.patched.unsqueeze(-1)

    edits: dict[str, Edit] = {site: partial(move, site) for site in weights}
    with torch.enable_grad():
        return run.source.read(edits)


def _idle(run: BatchRun, site: str) -> np.ndarray:
    """Features that differ in no pair of a batch when nothing is patched."""
    x = run.exp.model.capture(run.batch.source_ids, [site])[site]
    patch = run.patches[site]
    with torch.no_grad():
        codes = patch.dictionary.encode(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
        moved = ((patch.target_codes - codes) != 0) & patch.patched.unsqueeze(-1)
    return (~moved.flatten(0, 1).any(0)).cpu().numpy()
