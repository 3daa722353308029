"""A dictionary of the features that come back: those of several seeds, matched one to one and trained on.

Gerasimov et al. (2026, arXiv:2606.12138) pool the features of several seeds into a dictionary that is more
stable than any of them at equal explained variance. Here a feature is pooled if it comes back in most seeds;
each group of matching features gives one starting direction, and the dictionary is trained on from there, so
that its features work together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from helix_sae.errors import AnalysisError
from helix_sae.names import POOLED
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import JumpReluConfig
from helix_sae.sae.learner import Learner, SaeKey
from helix_sae.sae.objective import Params
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.stability import CERTIFIED, COMES_BACK, SeedFeatures, similarities
from helix_sae.sae.workers import borrowed_threads


class Matches(NamedTuple):
    """Features of two seeds matched one to one, each pair with its likeness (the smaller of cosine and correlation)."""

    one: Int[np.ndarray, " n"]
    other: Int[np.ndarray, " n"]
    likeness: Float[np.ndarray, " n"]


def match_one_to_one(one: SeedFeatures, other: SeedFeatures) -> Matches:
    """Match features so that the summed likeness is largest; pairs below 0.7 are dropped."""
    likeness = np.minimum(*similarities(one, other))
    # What cannot be a pair must not decide how the others are matched.
    rows, columns = linear_sum_assignment(np.where(likeness >= COMES_BACK, -likeness, 0.0))
    kept = likeness[rows, columns] >= COMES_BACK
    return Matches(rows[kept], columns[kept], likeness[rows, columns][kept])


def group_features(seeds: Sequence[SeedFeatures]) -> Int[np.ndarray, "n_groups n_seeds"]:
    """Group the matching features of all seeds, at most one of each seed.

    All pairs of seeds are matched one to one; from the most alike pair down, two groups become one where no
    seed is in both.

    Returns
    -------
    int array (n_groups, n_seeds)
        Number of each seed's feature in the group, -1 where the seed has none; largest groups first. Every
        living feature is in one group.
    """
    group: dict[tuple[int, int], dict[int, int]] = {
        (s, int(f)): {s: int(f)} for s, seed in enumerate(seeds) for f in np.flatnonzero(seed.alive)
    }
    pairs: list[tuple[float, int, int, int, int]] = []
    for s, t in combinations(range(len(seeds)), 2):
        for i, j, likeness in zip(*match_one_to_one(seeds[s], seeds[t]), strict=True):
            pairs.append((-float(likeness), s, int(i), t, int(j)))
    for _, s, i, t, j in sorted(pairs):
        one, other = group[s, i], group[t, j]
        if one is not other and one.keys().isdisjoint(other):
            one.update(other)
            for member in other.items():
                group[member] = one
    unique = list({id(members): members for members in group.values()}.values())
    unique.sort(key=len, reverse=True)
    return np.array([[members.get(s, -1) for s in range(len(seeds))] for members in unique]).reshape(
        -1, len(seeds)
    )


def pool_features(
    saes: Sequence[SparseAutoencoder], seeds: Sequence[SeedFeatures], site: str = "the data"
) -> SparseAutoencoder:
    """Make the dictionary of the features that come back in at least three quarters of the seeds, before it is trained on.

    Each tensor of a pooled feature is the mean of its members'; decoder rows are brought back to unit length.

    Parameters
    ----------
    saes : sequence of SparseAutoencoder
        One configuration from several seeds.
    seeds : sequence of SeedFeatures
        The same dictionaries on held-out tokens.
    site : str
        Named in messages.

    Raises
    ------
    AnalysisError
        If no feature comes back often enough.
    """
    groups = group_features(seeds)
    groups = groups[(groups >= 0).sum(axis=1) >= CERTIFIED * len(seeds)]
    if not len(groups):
        raise AnalysisError(
            f"At {site}, no feature comes back in three quarters of the {len(seeds)} seeds: there is "
            "nothing to pool. Train longer, with fewer features or fewer of them active."
        )
    chosen = torch.from_numpy(groups)
    d_in = saes[0].d_in
    config = saes[0].config.model_copy(update={"expansion_factor": len(groups) / d_in})
    tensors = {name: _pooled(name, saes, chosen) for name in saes[0].tensor_shapes()}
    tensors["W_dec"] = torch.nn.functional.normalize(tensors["W_dec"], dim=1)
    return architecture_of(config).autoencoder(config, tensors)


def _pooled(name: str, saes: Sequence[SparseAutoencoder], groups: Int[Tensor, "n_groups n_seeds"]) -> Tensor:
    """Mean of one tensor over the members of each group; of a tensor without features, over the seeds."""
    values = [sae.get_parameter(name).detach() for sae in saes]
    if name == "b_dec":
        return torch.stack(values).mean(0)
    rows = [value.T if name == "W_enc" else value for value in values]
    there = groups >= 0
    members = torch.stack([value[groups[:, s].clamp_min(0)] for s, value in enumerate(rows)], dim=1)
    weight = there.reshape(*there.shape, *[1] * (members.ndim - 2)).to(members.dtype)
    mean = (members * weight).sum(1) / weight.sum(1)
    return mean.T.contiguous() if name == "W_enc" else mean


def train_on(
    saes: Mapping[str, SparseAutoencoder],
    batches: Iterable[Mapping[str, Float[Tensor | np.ndarray, "batch d_in"]]],
    scalings: Mapping[str, InputScaling],
    n_steps: int,
    seed: int = 0,
) -> dict[str, SparseAutoencoder]:
    """Train dictionaries from where they stand, for ``n_steps`` of the batches, their learning rate falling to 0.

    The optimiser starts anew; the full price of activity counts from the first step.

    Parameters
    ----------
    saes : mapping of site to SparseAutoencoder
        They are left as they are.
    batches : iterable of mapping of site to float (batch, d_in)
        Raw activations of all the sites.
    scalings : mapping of site to InputScaling
    n_steps : int
        Steps; fewer where the batches end before.
    seed : int

    Returns
    -------
    dict of site to SparseAutoencoder

    Raises
    ------
    DataError
        If an activation is not finite.
    """
    learners = {
        site: _from_where_it_stands(site, sae, scalings[site], n_steps, seed) for site, sae in saes.items()
    }
    recent: dict[str, list[Tensor]] = {site: [] for site in saes}
    with borrowed_threads():
        for _, batch in zip(range(n_steps), batches, strict=False):
            for site, learner in learners.items():
                z = scalings[site].apply(torch.as_tensor(batch[site]).float())
                learner.step(z)
                recent[site] = [*recent[site][-15:], z]
        trained = {site: learner.export(torch.cat(recent[site])) for site, learner in learners.items()}
    for site, sae in saes.items():
        trained[site].config = sae.config
    return trained


def _from_where_it_stands(
    site: str, sae: SparseAutoencoder, scaling: InputScaling, n_steps: int, seed: int
) -> Learner:
    """A learner that begins at a dictionary: no feature is drawn, added or let go, and their price counts in full."""
    settled = {"sparsity_warmup_fraction": 0.0, "data_start": 0.0, "start_factor": 1.0}
    changes = {name: value for name, value in settled.items() if name in type(sae.config).model_fields}
    learner = Learner(SaeKey(site, POOLED), sae.config.model_copy(update=changes), scaling, n_steps, seed)
    start = unfold(sae, scaling)
    for name, value in learner.params.items():
        value.data.copy_(start[name])
    return learner


def unfold(sae: SparseAutoencoder, scaling: InputScaling) -> Params:
    """Parameters under training that :func:`~helix_sae.sae.objective.fold` would make this SAE of: its inverse."""
    tensors = {name: value.detach() for name, value in sae.named_parameters()}
    scale = scaling.scale
    params = {"encoder": tensors["W_enc"].T, "decoder": tensors["W_dec"]}
    params["b_dec"] = (tensors["b_dec"] - scaling.mean) * scale
    params.update({name: tensors[name] * scale for name in ("b_enc", "b_gate", "b_mag") if name in tensors})
    if isinstance(sae.config, JumpReluConfig):
        logarithm = (tensors["threshold"] * scale).clamp_min(1e-6).log()
        params["log_threshold"] = logarithm / sae.config.threshold_rate
    if "r_mag" in tensors:
        params["r_mag"] = tensors["r_mag"]
    return {name: value.clone() for name, value in params.items()}
