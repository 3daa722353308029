"""The effect of single features on the read-out: exact, by attribution patching, by integrated gradients.

Patching feature ``j`` of a site adds ``delta_tj d_j`` at every patched token ``t``, where ``delta`` is the
target's code minus the source's and ``d_j`` the decoder direction; the reconstruction error stays in place
and the model runs on from the site. The error itself is one more node.

References
----------
Vig et al. 2020 (activation patching); Nanda 2023 and Syed et al. 2023, arXiv:2310.10348 (attribution
patching); Marks et al. 2024, arXiv:2403.19647 (features and error nodes, integrated gradients).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.causal.batches import (
    Differences,
    PairBatch,
    Site,
    differences,
    pair_batches,
    passes,
    site_values,
    still_tokens,
    unpatched,
)
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.terms import Dictionary, Method, Start
from helix_sae.errors import ConfigurationError
from helix_sae.models.contract import Edit, record

DEFAULT_STEPS = 10
"""Midpoints of the integrated-gradients path."""

Nodes = Mapping[str, Sequence[int] | Int[np.ndarray, " k"]]
"""Numbers of the nodes of each site that are run."""


class Effects(NamedTuple):
    """Effects of every node on every pair.

    The last column of each matrix is the site's error node.

    Attributes
    ----------
    values : mapping of site to float32 (n_pairs, features + 1)
        Change of the read-out. Exactly 0 where the node does not differ within the pair; NaN where it was
        left out.
    magnitude : mapping of site to float32 (n_pairs, features + 1)
        Norm of the node's change, averaged over the source's nucleotides.
    y_source, y_target : float64 (n_pairs,)
        Read-out of both sequences, ``source`` being the one that is run (see ``direction``).
    y_patched : mapping of site to float64 (n_pairs,)
        Read-out with all features and the error of this site patched; NaN for ``atp``, which runs nothing on.
    metadata : dict
        Estimator and everything else that a number depends on.
    """

    values: dict[str, Float[np.ndarray, "n_pairs nodes"]]
    magnitude: dict[str, Float[np.ndarray, "n_pairs nodes"]]
    y_source: Float[np.ndarray, " n_pairs"]
    y_target: Float[np.ndarray, " n_pairs"]
    y_patched: dict[str, Float[np.ndarray, " n_pairs"]]
    metadata: dict[str, Any]

    @property
    def sites(self) -> tuple[str, ...]:
        """In forward order."""
        return tuple(self.values)

    def rows(self, index: Int[np.ndarray, " n"]) -> Effects:
        """The same for some of the pairs."""
        return Effects(
            values={site: v[index] for site, v in self.values.items()},
            magnitude={site: m[index] for site, m in self.magnitude.items()},
            y_source=self.y_source[index],
            y_target=self.y_target[index],
            y_patched={site: y[index] for site, y in self.y_patched.items()},
            metadata=self.metadata,
        )


def effects(
    exp: Experiment,
    method: Method = "exact",
    *,
    start: Start = "source",
    nodes: Nodes | None = None,
    steps: int = DEFAULT_STEPS,
    on_batch: Callable[[int], None] | None = None,
) -> Effects:
    """Effect of every feature and error node, one at a time, on every pair.

    Parameters
    ----------
    exp : Experiment
    method : {"exact", "atp", "ig"}
        ``exact`` runs the model on from the site, and from the first token that differs (the model is
        causal), for each pair and each node that differs. ``atp`` multiplies the
        difference by one gradient, ``ig`` by its mean along the path from source to patched.
    start : {"source", "patched"}
        ``exact`` only: change the node alone on the source's run, or leave it out of the fully patched site.
    nodes : mapping of site to indices, optional
        ``exact`` only: the nodes to run (the error node has the index of the number of features); others are
        NaN. A screening, said so in the metadata. See :func:`screen`.
    steps : int
        ``ig`` only: number of midpoints.
    on_batch : callable, optional
        Called with the number of pairs of each finished batch.

    Returns
    -------
    Effects

    Raises
    ------
    ConfigurationError
        If the arguments contradict each other.
    """
    own = {_OWN: exp.dictionaries}
    chosen = None if nodes is None else {_OWN: nodes}
    return effects_of_each(exp, own, method, start=start, nodes=chosen, steps=steps, on_batch=on_batch)[_OWN]


_OWN = "own"


def effects_of_each(
    exp: Experiment,
    candidates: Mapping[str, Mapping[str, Dictionary]],
    method: Method = "exact",
    *,
    start: Start = "source",
    nodes: Mapping[str, Nodes] | None = None,
    steps: int = DEFAULT_STEPS,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Effects]:
    """:func:`effects` of several dictionaries of the same sites: what no dictionary takes part in is run once for all.

    Parameters
    ----------
    exp : Experiment
        Its own dictionaries are not looked at.
    candidates : mapping of name to (mapping of site to Dictionary)
    method, start, steps, on_batch
        As there.
    nodes : mapping of name to (mapping of site to indices), optional

    Raises
    ------
    ConfigurationError
        If the arguments contradict each other.
    """
    if method != "exact" and (start != "source" or nodes is not None):
        raise ConfigurationError(f"start and nodes belong to method 'exact', not {method!r}.")
    wanted: dict[str, Nodes | None] = {name: None if nodes is None else nodes[name] for name in candidates}
    each = {name: exp.using(dictionaries) for name, dictionaries in candidates.items()}
    results = {
        name: _empty(own, _metadata(own, method, start, wanted[name], steps)) for name, own in each.items()
    }
    for batch in pair_batches(exp):
        if method == "atp":
            _fill_attribution(results, each, batch)
        else:
            _fill_by_running_on(results, each, batch, method, start, wanted, steps)
        if on_batch is not None:
            on_batch(len(batch.index))
    return results


def _fill_attribution(
    results: Mapping[str, Effects], each: Mapping[str, Experiment], batch: PairBatch
) -> None:
    """Estimates of one batch, from one pass of each side and one backward pass, over the tokens that differ and after."""
    exp = next(iter(each.values()))
    start = int(batch.first.min())
    patched = batch.patched[:, start:]
    y_source, y_target, source, target, gradients = _linearised(exp, batch, start)
    aligned = {site: batch.align(target[site], start) for site in exp.sites}
    for name, own in each.items():
        result = results[name]
        result.y_source[batch.index], result.y_target[batch.index] = _numpy(y_source), _numpy(y_target)
        for site, decoder in own.decoders.items():
            found = differences(own.dictionaries[site], decoder, patched, source[site], aligned[site])
            values = _attribute(found, gradients[site][patched], decoder, len(batch.index))
            result.values[site][batch.index] = _numpy(values)
            result.magnitude[site][batch.index] = _numpy(_magnitude(own, site, batch, found))


def _fill_by_running_on(
    results: Mapping[str, Effects],
    each: Mapping[str, Experiment],
    batch: PairBatch,
    method: Method,
    start: Start,
    nodes: Mapping[str, Nodes | None],
    steps: int,
) -> None:
    """Effects of one batch by running the model on from each site: exact ones, or along the path of ``ig``."""
    exp = next(iter(each.values()))
    y_source, y_target, source, target = unpatched(exp, batch)
    with torch.no_grad():
        cache = exp.model.cache(batch.source_ids)
    for result in results.values():
        result.y_source[batch.index], result.y_target[batch.index] = _numpy(y_source), _numpy(y_target)
    for site in exp.sites:
        y_patched = gradient = None
        for name, own in each.items():
            result, decoder = results[name], own.decoders[site]
            state = site_values(batch, own.dictionaries[site], decoder, source[site], target[site])
            run = SiteRun(own, site, batch, state, cache, y_source)
            # What a full patch puts at a site is the target's activation, whatever the dictionary.
            y_patched = run.read_from(state.target) if y_patched is None else y_patched
            if method == "exact":
                wanted = nodes[name]
                chosen = None if wanted is None else np.asarray(wanted.get(site, ()), dtype=np.int64)
                values = _exact(run, y_patched, start, chosen)
            else:
                gradient = _path_gradient(run, steps)[batch.patched] if gradient is None else gradient
                values = _attribute(state.found, gradient, decoder, len(batch.index))
            result.values[site][batch.index] = _numpy(values)
            result.magnitude[site][batch.index] = _numpy(_magnitude(own, site, batch, state.found))
            result.y_patched[site][batch.index] = _numpy(y_patched)


class SiteRun(NamedTuple):
    """One site of one batch, ready to be run on from."""

    exp: Experiment
    site: str
    batch: PairBatch
    state: Site
    cache: Any
    y_source: Float[Tensor, " n"]

    def read_from(self, value: Float[Tensor, "n time width"]) -> Float[Tensor, " n"]:
        """Read-out with another activation at the site."""
        with torch.no_grad():
            hidden = self.exp.model.resume(self.site, value, self.cache)
            return self.exp.read(hidden, self.batch.source_nucleotide)


def _exact(
    run: SiteRun,
    y_patched: Float[Tensor, " n"],
    start: Start,
    chosen: Int[np.ndarray, " k"] | None,
) -> Float[Tensor, "n nodes"]:
    """One resumed pass for each pair and node that differs, over the tokens from the first difference on."""
    state, n_features = run.state, run.exp.width(run.site) - 1
    error = (state.error_delta != 0).flatten(1).any(1, keepdim=True)
    differs = torch.cat([(state.delta != 0).any(1), error], dim=1)
    values = torch.zeros(differs.shape, dtype=run.y_source.dtype, device=differs.device)
    if chosen is not None:
        keep = torch.zeros(n_features + 1, dtype=torch.bool, device=differs.device)
        keep[torch.as_tensor(chosen, device=keep.device)] = True
        values[:, ~keep] = torch.nan
        differs &= keep
    sign = 1.0 if start == "source" else -1.0
    base, y_base = (state.x, run.y_source) if start == "source" else (state.target, y_patched)
    model, nucleotide = run.exp.model, run.batch.source_nucleotide
    # What a pass starts behind has to be that of its own beginning: the patched tokens before it, where it
    # starts there.
    cache = run.cache if start == "source" else _patched_cache(run)
    for rows, row, node, first in passes(
        differs, _first_change(state), state.x.shape[1], run.exp.token_budget
    ):
        with torch.no_grad():
            prefix = model.prefix_states(cache.rows(rows), first)
            picked = prefix.rows(torch.searchsorted(rows, row))
            change = _node_change(run, row, node, first)
            changed = (change != 0).any(-1)
            value = base[row, first:] + sign * change
            hidden = model.resume_suffix(run.site, value, picked, changed=changed)
            y = run.exp.read_out(model.pool_suffix(hidden, picked, nucleotide[rows]))
            values[row, node] = sign * (y - y_base[row])
    return values


def _patched_cache(run: SiteRun) -> Any:
    """The cache of the source's pass with the whole patch at the site."""
    with torch.no_grad(), run.exp.model.edited({run.site: lambda _: run.state.target}):
        return run.exp.model.cache(run.batch.source_ids)


def _first_change(state: Site) -> Int[Tensor, "n nodes"]:
    """First token at which patching a node changes anything; 0 where it never does."""
    features = (state.delta != 0).to(torch.uint8).argmax(1)
    error = (state.error_delta != 0).any(-1).to(torch.uint8).argmax(1)
    return torch.cat([features, error.unsqueeze(1)], dim=1)


def _node_change(
    run: SiteRun, row: Int[Tensor, " b"], node: Int[Tensor, " b"], first: int
) -> Float[Tensor, "b suffix width"]:
    """What patching a node adds to the activation from a token on, for several (pair, node) at once."""
    decoder, state = run.exp.decoders[run.site], run.state
    is_error = node == decoder.shape[0]
    feature = node.clamp(max=decoder.shape[0] - 1)
    change = state.delta[row, first:, feature].unsqueeze(-1) * decoder[feature].unsqueeze(1)
    if bool(is_error.any()):
        change[is_error] = state.error_delta[row[is_error], first:]
    return change


def _linearised(
    exp: Experiment, batch: PairBatch, start: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Both sides of a batch, and the gradient of the source's read-out in its activations.

    The tokens before ``start`` are the same on both sides and are run once; a patch does not touch them, so
    that no gradient is needed there.

    Returns
    -------
    y_source, y_target : float (n,)
    source, target, gradients : mapping of site to float (n, time - start, width)
    """
    model = exp.model
    with torch.no_grad():
        prefix = model.prefix_states(model.cache(batch.source_ids[:, : start + 1]), start)
    still = still_tokens(batch, start)
    source: dict[str, Tensor] = {}
    target: dict[str, Tensor] = {}
    followed: dict[str, Tensor] = {}

    def follow(site: str, activation: Tensor) -> Tensor:
        source[site] = activation.detach()
        # The first of them depends on nothing that has a gradient.
        followed[site] = activation if activation.requires_grad else source[site].clone().requires_grad_()
        return followed[site]

    def read(
        ids: Int[Tensor, "n time"],
        is_nucleotide: Bool[Tensor, "n time"],
        edit: Callable[[str, Tensor], Tensor],
    ) -> Float[Tensor, " n"]:
        edits: dict[str, Edit] = {site: partial(edit, site) for site in exp.sites}
        # What a model makes of its tokens before any of them are mixed: where both sides of a pair start
        # from.
        first = model.site_names[0]
        value = edits.pop(first, lambda x: x)(model.capture(ids[:, start:], [first])[first])
        hidden = model.resume_suffix(first, value, prefix, edits, still=still)
        return exp.read_out(model.pool_suffix(hidden, prefix, is_nucleotide))

    with torch.enable_grad():
        y_source = read(batch.source_ids, batch.source_nucleotide, follow)
        # A site that the read-out does not depend on has no gradient.
        found = torch.autograd.grad(y_source.sum(), [followed[s] for s in exp.sites], allow_unused=True)
    with torch.no_grad():
        y_target = read(batch.target_ids, batch.target_nucleotide, partial(record, target))
    gradients = {
        site: torch.zeros_like(followed[site]) if g is None else g
        for site, g in zip(exp.sites, found, strict=True)
    }
    return y_source.detach(), y_target, source, target, gradients


def _path_gradient(run: SiteRun, steps: int) -> Float[Tensor, "n time width"]:
    """Mean gradient at the midpoints of the straight path from the source's activation to the patched one."""
    state = run.state
    total = torch.zeros_like(state.x)
    for step in range(steps):
        point = (state.x + (step + 0.5) / steps * (state.target - state.x)).detach().requires_grad_(True)
        with torch.enable_grad():
            hidden = run.exp.model.resume(run.site, point, run.cache)
            y = run.exp.read(hidden, run.batch.source_nucleotide).sum()
            (gradient,) = torch.autograd.grad(y, point, allow_unused=True)
        total += 0.0 if gradient is None else gradient
    return total / steps


def _attribute(
    found: Differences,
    gradient: Float[Tensor, "m width"],
    decoder: Float[Tensor, "features width"],
    n_pairs: int,
) -> Float[Tensor, "n nodes"]:
    """``sum_t delta_tj <g_t, d_j>``, and for the error ``sum_t <g_t, e'_t - e_t>``."""
    features = (gradient @ decoder.T).mul_(found.codes)
    error = (gradient * found.error).sum(-1, keepdim=True)
    return _by_pair(features, error, found.row, n_pairs)


def _magnitude(exp: Experiment, site: str, batch: PairBatch, found: Differences) -> Float[Tensor, "n nodes"]:
    """Norm of each node's change, averaged over nucleotides."""
    error = found.error.norm(dim=-1, keepdim=True)
    norms = _by_pair(found.codes.abs(), error, found.row, len(batch.index))
    norms[:, :-1] *= exp.decoders[site].norm(dim=1)
    return norms / batch.source_nucleotide.sum(1, keepdim=True)


def _by_pair(
    features: Float[Tensor, "m features"],
    error: Float[Tensor, "m 1"],
    row: Int[Tensor, " m"],
    n_pairs: int,
) -> Float[Tensor, "n nodes"]:
    """Sums over the tokens of each pair."""
    # Each into an array of its own: adding into a part of a wider one is twenty times as slow.
    sums = [x.new_zeros(n_pairs, x.shape[1]).index_add_(0, row, x) for x in (features, error)]
    return torch.cat(sums, dim=1)


def screen(estimate: Effects, top: int, *, error: bool = True) -> dict[str, Int[np.ndarray, " k"]]:
    """The nodes of each site worth an exact run: the ``top`` features of largest mean absolute effect, and the error.

    Parameters
    ----------
    estimate : Effects
        Of a cheap method.
    top : int
        Features kept at each site.
    error : bool
        Whether the error node is kept too.
    """
    kept: dict[str, Int[np.ndarray, " k"]] = {}
    for site, values in estimate.values.items():
        score = np.abs(values[:, :-1]).mean(axis=0)
        best = np.argsort(-score, kind="stable")[:top]
        kept[site] = best[score[best] > 0]
        if error:
            kept[site] = np.append(kept[site], values.shape[1] - 1)
    return kept


def _empty(exp: Experiment, metadata: dict[str, Any]) -> Effects:
    n_pairs = len(exp.pairs)

    def matrices() -> dict[str, np.ndarray]:
        return {site: np.zeros((n_pairs, width), dtype=np.float32) for site, width in exp.widths.items()}

    return Effects(
        values=matrices(),
        magnitude=matrices(),
        y_source=np.zeros(n_pairs),
        y_target=np.zeros(n_pairs),
        y_patched={site: np.full(n_pairs, np.nan) for site in exp.sites},
        metadata=metadata,
    )


def _metadata(
    exp: Experiment, method: Method, start: Start, nodes: Mapping[str, Any] | None, steps: int
) -> dict[str, Any]:
    return exp.metadata(
        method,
        start=start if method == "exact" else "path" if method == "ig" else "source",
        steps=steps if method == "ig" else None,
        screening=None if nodes is None else {site: len(chosen) for site, chosen in nodes.items()},
    )


def stamp(table: pd.DataFrame, metadata: Mapping[str, Any], **changes: Any) -> pd.DataFrame:
    """Add to a table what its numbers depend on.

    Parameters
    ----------
    table : DataFrame
    metadata : mapping
        Of the :class:`Effects` of the same experiment.
    **changes
        Columns that are different for this table, e.g. ``estimator="acdc"``.

    Returns
    -------
    DataFrame
        With ``estimator, direction, positions, error_handling``, ``model`` (12 hexadecimal digits of the
        fingerprint) and ``dictionary_hash`` (of the site's decoder, of all of them where a row has no site).
    """
    hashes: Mapping[str, str] = metadata["dictionaries"]
    joint = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16]
    columns: dict[str, Any] = {
        name: metadata[name] for name in ("estimator", "direction", "positions", "error_handling")
    }
    columns |= {
        "model": str(metadata["model"])[:12],
        "dictionary_hash": table["site"].map(hashes).fillna(joint) if "site" in table else joint,
    }
    columns |= changes
    if taken := sorted(set(columns) & set(table) - {"estimator", "direction"}):
        raise ConfigurationError(
            f"A table that is stamped has the columns {', '.join(taken)} already; rename them."
        )
    return table.assign(**columns)


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
