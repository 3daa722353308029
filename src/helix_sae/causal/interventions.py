"""Patching sets of nodes at several sites at once.

At each site the codes of the chosen features are overwritten with the *target's* values, computed on whatever
activation arrives there after the patches before it (the do-operator): what an upstream patch already brought
about is not added a second time. A chosen error node is overwritten with the target's error; one that is not
chosen stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.causal.batches import PairBatch, Pass, SourceRun, encode, observe, pair_batches, passes
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.terms import Dictionary
from helix_sae.errors import ConfigurationError
from helix_sae.models.contract import Edit

NodeSet = Mapping[str, Bool[np.ndarray, " nodes"]]
"""Chosen nodes of each site: its features and, last, its error node. A site that is left out has none."""


class GroupOutcome(NamedTuple):
    """Read-outs with sets of nodes patched.

    Attributes
    ----------
    y : float64 (n_sets, n_pairs)
    magnitude : float64 (n_sets, n_pairs)
        Norm of the change that was made, over all sites together (root of the sum of squares), averaged over
        the source's nucleotides.
    y_source, y_target : float64 (n_pairs,)
    divergence : float64 (n_sets, n_pairs)
        From the target's read-out.
    """

    y: Float[np.ndarray, "n_sets n_pairs"]
    magnitude: Float[np.ndarray, "n_sets n_pairs"]
    y_source: Float[np.ndarray, " n_pairs"]
    y_target: Float[np.ndarray, " n_pairs"]
    divergence: Float[np.ndarray, "n_sets n_pairs"]

    def of(self, sets: Int[np.ndarray, " k"]) -> GroupOutcome:
        """The same for some of the sets, repeats allowed."""
        return self._replace(y=self.y[sets], magnitude=self.magnitude[sets], divergence=self.divergence[sets])


class SitePatch:
    """An edit that overwrites chosen nodes of one site of one batch with the target's values.

    The squared norm of its last change is kept in ``squared_change`` (batch, time).

    Parameters
    ----------
    dictionary : Dictionary
    decoder : float (features, width)
    target_codes : float (n, time, features)
        The target's codes at the tokens that stand for the source's.
    target_error : float (n, time, width)
    patched : bool (n, time)
        Tokens to touch.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        decoder: Float[Tensor, "features width"],
        target_codes: Float[Tensor, "n time features"],
        target_error: Float[Tensor, "n time width"],
        patched: Bool[Tensor, "n time"],
    ) -> None:
        self.dictionary, self.decoder, self.patched = dictionary, decoder, patched
        self.target_codes, self.target_error = target_codes, target_error
        self.squared_change: Tensor | None = None
        self.keep: Tensor | None = None
        self.keep_error: Tensor | None = None

    def picked(self, row: Int[Tensor, " b"] | slice, first: int) -> SitePatch:
        """The same for some rows, repeats allowed, from a token on."""
        arrays = (x[row, first:] for x in (self.target_codes, self.target_error, self.patched))
        return SitePatch(self.dictionary, self.decoder, *arrays)

    def choose(self, nodes: Bool[np.ndarray, "*b nodes"]) -> SitePatch:
        """Set which nodes are overwritten: the same for all rows, or a row of ``nodes`` for each."""
        chosen = torch.from_numpy(np.ascontiguousarray(nodes)).to(self.decoder)
        chosen = chosen.unsqueeze(-2) if chosen.dim() > 1 else chosen
        self.keep, error = chosen[..., :-1], chosen[..., -1:]
        self.keep_error = error if bool(error.any()) else None
        return self

    def change(self, activation: Float[Tensor, "n time width"]) -> Float[Tensor, "n time width"]:
        """What the patch adds to an activation."""
        assert self.keep is not None
        if self.keep_error is None:
            change = ((self.target_codes - _codes(self.dictionary, activation)) * self.keep) @ self.decoder
        else:
            codes, error = encode(self.dictionary, activation)
            change = ((self.target_codes - codes) * self.keep) @ self.decoder
            change = change + (self.target_error - error) * self.keep_error
        return change * self.patched.unsqueeze(-1)

    def __call__(self, activation: Float[Tensor, "n time width"]) -> Float[Tensor, "n time width"]:
        """The patched activation."""
        change = self.change(activation)
        self.squared_change = change.square().sum(-1)
        return activation + change


def patched_outputs(exp: Experiment, sets: Sequence[NodeSet]) -> GroupOutcome:
    """Read-out of every pair with each of several sets of nodes patched.

    Parameters
    ----------
    exp : Experiment
    sets : sequence of NodeSet

    Raises
    ------
    ConfigurationError
        If a set names a site without a dictionary or has the wrong number of nodes.
    """
    for nodes in sets:
        check_nodes(exp, nodes)
    n_pairs = len(exp.pairs)
    shape = (len(sets), n_pairs)
    out = GroupOutcome(
        np.zeros(shape), np.zeros(shape), np.zeros(n_pairs), np.zeros(n_pairs), np.zeros(shape)
    )
    for batch in pair_batches(exp):
        run = BatchRun(exp, batch)
        y, magnitude = run.patched(sets)
        divergence = torch.stack([exp.read_out.divergence(one, run.y_target) for one in y])
        out.y_source[batch.index] = run.y_source.cpu().numpy()
        out.y_target[batch.index] = run.y_target.cpu().numpy()
        out.y[:, batch.index], out.magnitude[:, batch.index] = y.cpu().numpy(), magnitude.cpu().numpy()
        out.divergence[:, batch.index] = divergence.cpu().numpy()
    return out


class BatchRun:
    """One batch, prepared for many group patches.

    Parameters
    ----------
    exp : Experiment
    batch : PairBatch
    """

    def __init__(self, exp: Experiment, batch: PairBatch) -> None:
        self.exp, self.batch, self.source = exp, batch, SourceRun(exp, batch)
        last, cache = exp.model.site_names[-1], self.source.cache
        with torch.no_grad():
            hidden = exp.model.resume(last, exp.model.at_site(last, cache), cache)
            self.y_source = exp.read(hidden, batch.source_nucleotide)
        self.y_target, target = observe(exp, batch.target_ids, batch.target_nucleotide)
        self.patches = {
            site: SitePatch(
                exp.dictionaries[site],
                exp.decoders[site],
                *encode(exp.dictionaries[site], batch.align(target[site])),
                batch.patched,
            )
            for site in exp.sites
        }

    def hooks(self, nodes: NodeSet, first: int = 0) -> dict[str, SitePatch]:
        """The patches of the sites that have a chosen node, from a token on."""
        return {
            site: self.patches[site].picked(slice(None), first).choose(nodes[site])
            for site in self.exp.sites
            if _any(nodes, site)
        }

    def patched(self, sets: Sequence[NodeSet]) -> tuple[Float[Tensor, "n_sets n"], Float[Tensor, "n_sets n"]]:
        """Read-out and magnitude of the change, with each of several sets.

        A set's run begins at the first site that it has a node of, and at the first token that differs:
        nothing before moves. Pairs and sets are run together up to the token budget.
        """
        n, time = self.batch.patched.shape
        y = self.y_source.repeat(len(sets), 1)
        magnitude = torch.zeros_like(y)
        begin = [next((site for site in self.exp.sites if _any(nodes, site)), None) for nodes in sets]
        first = torch.from_numpy(self.batch.first).clamp(max=time - 1).to(y.device)
        for site in dict.fromkeys(b for b in begin if b is not None):
            with torch.no_grad():
                x = self.exp.model.at_site(site, self.source.cache)
            which = [i for i, b in enumerate(begin) if b == site]
            together = torch.ones(n, len(which), dtype=torch.bool, device=y.device)
            starts = first.unsqueeze(1).expand(-1, len(which))
            for run in passes(together, starts, time, self.exp.token_budget):
                chosen = [sets[which[i]] for i in run.change.tolist()]
                at = torch.as_tensor(which, device=y.device)[run.change], run.row
                y[at], magnitude[at] = self._run_on(site, x, run, chosen)
        return y, magnitude

    def _run_on(
        self, site: str, x: Float[Tensor, "n time width"], run: Pass, sets: Sequence[NodeSet]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Read-outs and magnitudes of one pass, which begins at a site with its source's activation."""
        model, nucleotide = self.exp.model, self.batch.source_nucleotide
        hooks = {
            name: self.patches[name].picked(run.row, run.first).choose(self._nodes(name, sets))
            for name in self.exp.sites
            if any(_any(nodes, name) for nodes in sets)
        }
        later: dict[str, Edit] = {name: patch for name, patch in hooks.items() if name != site}
        with torch.no_grad():
            prefix = model.prefix_states(self.source.cache.rows(run.rows), run.first)
            picked = prefix.rows(torch.searchsorted(run.rows, run.row))
            hidden = model.resume_suffix(site, hooks[site](x[run.row, run.first :]), picked, later)
            y = self.exp.read_out(model.pool_suffix(hidden, picked, nucleotide[run.rows]))
        squares = [patch.squared_change for patch in hooks.values() if patch.squared_change is not None]
        total = torch.stack(squares).sum(0).sqrt().sum(1)
        return y, total / nucleotide.sum(1)[run.row]

    def _nodes(self, site: str, sets: Sequence[NodeSet]) -> Bool[np.ndarray, "b nodes"]:
        """The nodes of one site in each of several sets."""
        none = np.zeros(self.exp.width(site), dtype=bool)
        return np.stack([nodes.get(site, none) for nodes in sets])


def check_nodes(exp: Experiment, nodes: NodeSet) -> None:
    """Make sure that a set fits the dictionaries.

    Raises
    ------
    ConfigurationError
        Naming the site that does not fit.
    """
    for site, chosen in nodes.items():
        if site not in exp.decoders:
            raise ConfigurationError(
                f"A set of nodes names site {site!r}, for which there is no dictionary here."
            )
        if chosen.shape != (exp.width(site),):
            raise ConfigurationError(
                f"Site {site!r} has {exp.width(site)} nodes (its features and the error); the set has "
                f"{chosen.shape}."
            )


def all_nodes(
    widths: Mapping[str, int], *, features: bool = True, error: bool = True
) -> dict[str, np.ndarray]:
    """A set with every feature, every error node, or both.

    Parameters
    ----------
    widths : mapping of site to int
        Nodes of each site, the error node included.
    """
    out: dict[str, np.ndarray] = {}
    for site, width in widths.items():
        chosen = np.full(width, features)
        chosen[-1] = error
        out[site] = chosen
    return out


def _codes(dictionary: Dictionary, x: Float[Tensor, "n time width"]) -> Float[Tensor, "n time features"]:
    """Codes alone: half of the work where the reconstruction error stays in place."""
    with torch.no_grad():
        return dictionary.encode(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


def _any(nodes: NodeSet, site: str) -> bool:
    return site in nodes and bool(nodes[site].any())
