"""The ceiling of what few directions can do: a supervised subspace of each site (distributed alignment search).

A rotation of each site's activations is trained on discovery pairs so that swapping its first directions,
source for target, swaps the read-out. Unlike features it is told what to look for; what it reaches on other
families is what a perfect choice of directions could. It is a dictionary like any other: orthonormal, the
trained directions first.

References
----------
Geiger et al. 2024, arXiv:2303.02536 (distributed alignment search).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from helix_sae.causal.baselines import LinearDictionary
from helix_sae.causal.batches import STEPWISE_PADDING, PairBatch, SourceRun, observe, pair_batches
from helix_sae.causal.experiment import Experiment
from helix_sae.errors import ConfigurationError

DEFAULT_RANK = 8
DEFAULT_STEPS = 32
_RATE = 0.02


class Subspaces(NamedTuple):
    """Trained rotations.

    Attributes
    ----------
    dictionaries : mapping of site to LinearDictionary
        Orthonormal rows: the trained directions, the most important first, then a basis of the rest.
    history : DataFrame
        ``step, n_directions`` (swapped, of all sites) and ``loss`` (squared distance from the read-out of the
        full patch, as a share of its squared effect).
    passes : float
        Runs of a sequence that the training took for each pair; a backward run counts as two.
    """

    dictionaries: dict[str, LinearDictionary]
    history: pd.DataFrame
    passes: float


def fit_subspaces(
    exp: Experiment, *, rank: int = DEFAULT_RANK, steps: int = DEFAULT_STEPS, seed: int = 0
) -> Subspaces:
    """Train the rotations of all sites together.

    The number of directions that are swapped is drawn anew for each site at every step, none at half of them,
    so that the first directions come to matter most, alone as well as together. They begin at the directions
    along which the read-out's gradient is largest.

    Parameters
    ----------
    exp : Experiment
        With the discovery pairs. Its dictionaries are not looked at.
    rank : int
        Directions trained at each site.
    steps : int
        Each runs all pairs forwards and backwards once.
    seed : int
        Of the draws of the number of directions.

    Raises
    ------
    ConfigurationError
        If a site has fewer dimensions than ``rank``.
    """
    widths = {site: exp.decoders[site].shape[1] for site in exp.sites}
    if rank < 1 or rank > min(widths.values()):
        raise ConfigurationError(
            f"A supervised subspace of {rank} directions does not fit sites of {min(widths.values())}"
            " dimensions."
        )
    batches = [_Swap(exp, batch) for batch in pair_batches(exp, STEPWISE_PADDING)]
    scale = max(sum(float((b.y_all - b.y_source).square().sum()) for b in batches), 1e-30)
    rotations = {site: _rotation(_leading(batches, site, rank)) for site in exp.sites}
    weights = [p for module in rotations.values() for p in module.parameters()]
    optimiser = torch.optim.Adam(weights, lr=_RATE)
    rng, rows = np.random.default_rng(seed), list[dict[str, float]]()
    ranks = [r for r in (1, 2, 4, 8, 16, 32, 64) if r < rank] + [rank]
    for step in range(steps):
        drawn = [
            0 if alone else int(r)
            for alone, r in zip(rng.random(len(widths)) < 0.5, rng.choice(ranks, len(widths)), strict=True)
        ]
        drawn = drawn if any(drawn) else [1] * len(widths)
        optimiser.zero_grad()
        loss = 0.0
        for batch in batches:
            directions = {s: m.weight[:k] for (s, m), k in zip(rotations.items(), drawn, strict=True)}
            missed = (batch.read(directions) - batch.y_all).square().sum() / scale
            missed.backward()
            loss += float(missed.detach())
        optimiser.step()
        rows.append({"step": step, "n_directions": sum(drawn), "loss": loss})
    with torch.no_grad():
        dictionaries = {site: _completed(module.weight.detach()) for site, module in rotations.items()}
    # Both sides, the gradient for the start and the full patch, then one run forwards and one backwards (two)
    # a step.
    return Subspaces(dictionaries, pd.DataFrame(rows), 6.0 + 3.0 * steps)


class _Swap:
    """One batch with what both sides have at the sites, and the gradient of the source's read-out there."""

    def __init__(self, exp: Experiment, batch: PairBatch) -> None:
        self.exp, self.source = exp, SourceRun(exp, batch)
        begin = self.source.start
        _, target = observe(exp, batch.target_ids, batch.target_nucleotide)
        self.patched = batch.patched[:, begin:]
        self.target = {site: batch.align(values)[:, begin:] for site, values in target.items()}
        here = {site: exp.model.at_site(site, self.source.cache)[:, begin:] for site in exp.sites}
        self.moved = {site: (self.target[site] - here[site])[self.patched] for site in exp.sites}
        followed: dict[str, Tensor] = {}

        def follow(site: str, x: Tensor) -> Tensor:
            followed[site] = x if x.requires_grad else x.detach().requires_grad_()
            return followed[site]

        with torch.enable_grad():
            y = self.source.read({site: partial(follow, site) for site in exp.sites})
            found = torch.autograd.grad(y.sum(), [followed[s] for s in exp.sites], allow_unused=True)
        self.y_source = y.detach()
        self.gradients = {
            site: torch.zeros_like(self.moved[site]) if g is None else g[self.patched]
            for site, g in zip(exp.sites, found, strict=True)
        }
        with torch.no_grad():
            self.y_all = self.read(None)

    def read(self, directions: dict[str, Float[Tensor, "k width"]] | None) -> Float[Tensor, " n"]:
        """Read-out with some directions of every site swapped; with everything when none are given."""

        def swap(site: str, x: Tensor) -> Tensor:
            change = self.target[site] - x
            if directions is not None:
                change = (change @ directions[site].T) @ directions[site]
            return x + change * self.patched.unsqueeze(-1)

        return self.source.read({site: partial(swap, site) for site in self.exp.sites})


def _leading(batches: list[_Swap], site: str, rank: int) -> Float[Tensor, "rank width"]:
    """Orthonormal directions to begin with: those of largest gradient, where what is moved goes along with it."""
    gradients = torch.cat([b.gradients[site] for b in batches])
    moved = torch.cat([b.moved[site] for b in batches])
    # First the mean direction of the gradient over what moves, then what is left of the gradients and of the
    # moves.
    rows = torch.cat(
        [gradients * moved.norm(dim=1, keepdim=True), 1e-3 * gradients.norm(dim=1).mean() * moved]
    )
    _, _, basis = torch.linalg.svd(rows.double(), full_matrices=len(rows) < rows.shape[1])
    return basis[:rank].to(gradients.dtype)


def _rotation(start: Float[Tensor, "rank width"]) -> nn.Linear:
    """A matrix with orthonormal rows that stays so while it is trained."""
    rank, width = start.shape
    linear = nn.Linear(width, rank, bias=False, device=start.device, dtype=start.dtype)
    with torch.no_grad():
        linear.weight.copy_(start)
    # Without a trivialisation: that would complete the rows at random.
    made = parametrizations.orthogonal(linear, orthogonal_map="householder", use_trivialization=False)
    assert isinstance(made, nn.Linear)
    return made


def _completed(rows: Float[Tensor, "rank width"]) -> LinearDictionary:
    """The rows and a basis of what is orthogonal to them, as a dictionary."""
    rank, width = rows.shape
    spanning = torch.cat([rows, torch.eye(width, dtype=rows.dtype, device=rows.device)])
    rest = torch.linalg.qr(spanning.double().T).Q.T[rank:].to(rows.dtype)
    basis = torch.cat([rows, rest])
    return LinearDictionary(basis.T.contiguous(), basis, basis.new_zeros(width))
