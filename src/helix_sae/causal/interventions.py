"""Patching sets of nodes at several sites at once.

At each site the codes of the chosen features are overwritten with the *target's* values, computed on whatever activation
arrives there after the patches before it (the do-operator): what an upstream patch already brought about is not added
a second time. A chosen error node is overwritten with the target's error; one that is not chosen stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.causal.batches import PairBatch, encode, observe, pair_batches
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
        Norm of the change that was made, over all sites together (root of the sum of squares), averaged over the
        source's nucleotides.
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
    target : float (n, time, width)
        The target's activation at the tokens that stand for the source's.
    patched : bool (n, time)
        Tokens to touch.
    nodes : bool (features + 1,)
    """

    def __init__(
        self,
        dictionary: Dictionary,
        decoder: Float[Tensor, "features width"],
        target: Float[Tensor, "n time width"],
        patched: Bool[Tensor, "n time"],
    ) -> None:
        self.dictionary, self.decoder, self.patched = dictionary, decoder, patched
        self.target_codes, self.target_error = encode(dictionary, target)
        self.squared_change: Tensor | None = None
        self.keep: Tensor | None = None
        self.with_error = False

    def choose(self, nodes: Bool[np.ndarray, " nodes"]) -> SitePatch:
        """Set which nodes are overwritten."""
        chosen = torch.from_numpy(np.ascontiguousarray(nodes[:-1])).to(self.decoder.device)
        self.keep, self.with_error = chosen.nonzero().squeeze(1), bool(nodes[-1])
        return self

    def change(self, activation: Float[Tensor, "n time width"]) -> Float[Tensor, "n time width"]:
        """What the patch adds to an activation."""
        assert self.keep is not None
        if self.with_error:
            codes, error = encode(self.dictionary, activation)
        else:
            codes, error = _codes(self.dictionary, activation), None
        delta = self.target_codes - codes
        if len(self.keep) < self.decoder.shape[0]:
            change = delta.index_select(-1, self.keep) @ self.decoder.index_select(0, self.keep)
        else:
            change = delta @ self.decoder
        if error is not None:
            change = change + (self.target_error - error)
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
        out.y_source[batch.index], out.y_target[batch.index] = (
            run.y_source.cpu().numpy(),
            run.y_target.cpu().numpy(),
        )
        for i, nodes in enumerate(sets):
            y, magnitude = run.patched(nodes)
            out.y[i, batch.index], out.magnitude[i, batch.index] = y.cpu().numpy(), magnitude.cpu().numpy()
            out.divergence[i, batch.index] = exp.read_out.divergence(y, run.y_target).cpu().numpy()
    return out


class BatchRun:
    """One batch, prepared for many group patches.

    Parameters
    ----------
    exp : Experiment
    batch : PairBatch
    """

    def __init__(self, exp: Experiment, batch: PairBatch) -> None:
        self.exp, self.batch = exp, batch
        with torch.no_grad():
            self.y_source = exp.read(exp.model.run(batch.source_ids, {}), batch.source_nucleotide)
        self.y_target, target = observe(exp, batch.target_ids, batch.target_nucleotide)
        self.patches = {
            site: SitePatch(
                exp.dictionaries[site], exp.decoders[site], batch.align(target[site]), batch.patched
            )
            for site in exp.sites
        }

    def hooks(self, nodes: NodeSet) -> dict[str, Edit]:
        """The patches of the sites that have a chosen node."""
        return {site: self.patches[site].choose(nodes[site]) for site in self.exp.sites if _any(nodes, site)}

    def patched(self, nodes: NodeSet) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Read-out and magnitude of the change."""
        hooks = self.hooks(nodes)
        with torch.no_grad():
            hidden = self.exp.model.run(self.batch.source_ids, hooks)
            y = self.exp.read(hidden, self.batch.source_nucleotide)
        return y, self.magnitude(hooks)

    def magnitude(self, hooks: Mapping[str, Edit]) -> Float[Tensor, " n"]:
        """Size of the change that the hooks last made."""
        squares = [self.patches[site].squared_change for site in hooks]
        if not squares:
            return torch.zeros_like(self.y_source)
        total = torch.stack([s for s in squares if s is not None]).sum(0).sqrt()
        return total.sum(1) / self.batch.source_nucleotide.sum(1)


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
                f"Site {site!r} has {exp.width(site)} nodes (its features and the error); the set has {chosen.shape}."
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
