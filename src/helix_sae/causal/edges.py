"""Which node of a circuit acts through which other.

The weight of an edge from node ``u`` to a later node ``v`` is the part of u's effect on the read-out that
runs through v: patching u changes what v contributes to its site, and that change, alone, changes the
read-out. As a gradient::

    sum_t delta_tu <d/dx_t sum_s <g_s, v_s(x)>, d_u>

with ``v_s(x)`` what v contributes at token s (``c_sj d_j``, or the error) and ``g`` the gradient of the
read-out at v's site, held fixed. Paths from u to v through nodes between them are counted in. The strongest
edges are then measured by running the model: u patched, v's new contribution put alone into the source's run
(path patching).

References
----------
Marks et al. 2024, arXiv:2403.19647; Goldowsky-Dill et al. 2023, arXiv:2304.05969 (path patching).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.causal.batches import (
    PairBatch,
    Site,
    pair_batches,
    record,
    site_values,
    unpatched,
)
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.interventions import NodeSet, check_nodes
from helix_sae.causal.terms import ERROR
from helix_sae.models.contract import Edit


class Node(NamedTuple):
    """A feature of a site, or its error node (the index of the number of features)."""

    site: str
    index: int


def circuit_edges(
    exp: Experiment,
    nodes: NodeSet,
    signs: Float[np.ndarray, " n_pairs"],
    *,
    n_verified: int = 20,
) -> pd.DataFrame:
    """Edges between the nodes of a circuit, by gradient, the strongest ones exactly.

    Parameters
    ----------
    exp : Experiment
    nodes : NodeSet
        The circuit.
    signs : float (n_pairs,)
        Orientation of each pair (:func:`helix_sae.causal.inference.orientation`).
    n_verified : int
        Edges of largest |estimate| that are also measured by path patching.

    Returns
    -------
    DataFrame
        ``upstream_site, upstream_feature, site, feature`` (index, or ``error``), ``estimate`` and ``exact``
        (mean oriented effect on the read-out; ``exact`` is NaN where it was not measured), strongest first.
    """
    exp = exp.at(list(nodes))
    check_nodes(exp, nodes)
    members = [Node(site, int(j)) for site in exp.sites for j in np.flatnonzero(nodes[site])]
    place = {site: i for i, site in enumerate(exp.sites)}
    edges = [(u, v) for v in members for u in members if place[u.site] < place[v.site]]
    usable = np.nan_to_num(signs)
    total, n_pairs = np.zeros(len(edges)), max(int((usable != 0).sum()), 1)
    batches = list(pair_batches(exp))
    for batch in batches:
        total += _estimates(exp, batch, members, edges, usable)
    order = np.argsort(-np.abs(total), kind="stable")
    exact = np.full(len(edges), np.nan)
    verified = order[:n_verified]
    if len(verified):
        exact[verified] = 0.0
    for batch in batches:
        exact[verified] += _measured(exp, batch, [edges[i] for i in verified], usable)
    return pd.DataFrame(
        [
            {
                "upstream_site": u.site,
                "upstream_feature": _name(exp, u),
                "site": v.site,
                "feature": _name(exp, v),
                "estimate": total[i] / n_pairs,
                "exact": exact[i] / n_pairs,
            }
            for i, (u, v) in ((int(i), edges[int(i)]) for i in order)
        ],
        columns=pd.Index(["upstream_site", "upstream_feature", "site", "feature", "estimate", "exact"]),
    )


def circuit_to_json(
    circuit: pd.DataFrame, edges: pd.DataFrame, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The circuit in the node-link form that networkx and d3 read.

    Parameters
    ----------
    circuit : DataFrame
        ``site, feature, attribution`` (:meth:`helix_sae.causal.acdc.Acdc.circuit`).
    edges : DataFrame
        Of :func:`circuit_edges`.
    metadata : mapping
        Goes into ``graph``.
    """
    return {
        "directed": True,
        "multigraph": False,
        "graph": dict(metadata),
        "nodes": [
            {
                "id": f"{row.site}:{row.feature}",
                "site": row.site,
                "feature": row.feature,
                "attribution": float(row.attribution),
            }
            for row in circuit.itertuples(index=False)
        ],
        "links": [
            {
                "source": f"{row.upstream_site}:{row.upstream_feature}",
                "target": f"{row.site}:{row.feature}",
                "estimate": float(row.estimate),
                "exact": None if np.isnan(row.exact) else float(row.exact),
            }
            for row in edges.itertuples(index=False)
        ],
    }


def _name(exp: Experiment, node: Node) -> str:
    return ERROR if node.index == exp.width(node.site) - 1 else str(node.index)


def _estimates(
    exp: Experiment,
    batch: PairBatch,
    members: Sequence[Node],
    edges: Sequence[tuple[Node, Node]],
    signs: Float[np.ndarray, " n_pairs"],
) -> Float[np.ndarray, " n_edges"]:
    """Sum over the batch of oriented estimates: one forward pass, one backward pass for each later node."""
    nudges: dict[str, Tensor] = {}
    reached: dict[str, Tensor] = {}

    def watch(site: str) -> Edit:
        def edit(activation: Tensor) -> Tensor:
            nudges[site] = torch.zeros_like(activation, requires_grad=True)
            reached[site] = activation + nudges[site]
            return reached[site]

        return edit

    sign = torch.as_tensor(signs[batch.index], device=batch.source_ids.device)
    _, _, source, target = unpatched(exp, batch)
    states = {
        s: site_values(batch, exp.dictionaries[s], exp.decoders[s], source[s], target[s]) for s in exp.sites
    }
    with torch.enable_grad():
        hidden = exp.model.run(batch.source_ids, {site: watch(site) for site in exp.sites})
        y = (exp.read(hidden, batch.source_nucleotide) * sign.to(hidden.dtype)).sum()
        gradients = torch.autograd.grad(
            y, [nudges[s] for s in exp.sites], retain_graph=True, allow_unused=True
        )
        found: dict[tuple[Node, Node], float] = {}
        for v in members:
            before = exp.sites[: exp.sites.index(v.site)]
            gradient = gradients[exp.sites.index(v.site)]
            if not before or gradient is None:
                continue
            contribution = _contribution(exp, v, reached[v.site]) * batch.patched.unsqueeze(-1)
            through = (gradient * contribution).sum()
            back = torch.autograd.grad(
                through, [nudges[s] for s in before], retain_graph=True, allow_unused=True
            )
            for site, g in zip(before, back, strict=True):
                if g is not None:
                    found |= {
                        (u, v): float((g * _change(exp, u, states[site])).sum())
                        for u in members
                        if u.site == site
                    }
    return np.array([found.get(edge, 0.0) for edge in edges])


def _measured(
    exp: Experiment,
    batch: PairBatch,
    edges: Sequence[tuple[Node, Node]],
    signs: Float[np.ndarray, " n_pairs"],
) -> Float[np.ndarray, " n_edges"]:
    """Sum over the batch of oriented effects by path patching: two passes an edge."""
    y_source, _, source, target = unpatched(exp, batch)
    sign = torch.as_tensor(signs[batch.index], device=y_source.device)
    out = np.zeros(len(edges))
    for i, (u, v) in enumerate(edges):
        state = site_values(
            batch, exp.dictionaries[u.site], exp.decoders[u.site], source[u.site], target[u.site]
        )
        with torch.no_grad():
            arrived = _run_and_read(exp, batch, u, state, v.site)
            moved = _contribution(exp, v, arrived) - _contribution(exp, v, source[v.site])
            value = source[v.site] + moved * batch.patched.unsqueeze(-1)
            hidden = exp.model.run(batch.source_ids, {v.site: lambda _, value=value: value})
            y = exp.read(hidden, batch.source_nucleotide)
        out[i] = float(((y - y_source) * sign).sum())
    return out


def _run_and_read(
    exp: Experiment, batch: PairBatch, node: Node, state: Site, site: str
) -> Float[Tensor, "n time width"]:
    """The activation at a later site with one node patched."""
    seen: dict[str, Tensor] = {}
    change = _change(exp, node, state)
    exp.model.run(batch.source_ids, {node.site: lambda x: x + change, site: partial(record, seen, site)})
    return seen[site]


def _contribution(
    exp: Experiment, node: Node, x: Float[Tensor, "n time width"]
) -> Float[Tensor, "n time width"]:
    """What a node adds to its site's activation, differentiable in it."""
    dictionary, decoder = exp.dictionaries[node.site], exp.decoders[node.site]
    codes = dictionary.encode(x.reshape(-1, x.shape[-1]))
    if node.index < decoder.shape[0]:
        return (codes[:, node.index, None] * decoder[node.index]).view(x.shape)
    return x - dictionary.decode(codes).view(x.shape)


def _change(exp: Experiment, node: Node, state: Site) -> Float[Tensor, "n time width"]:
    """What patching a node adds to its site's activation."""
    decoder = exp.decoders[node.site]
    if node.index < decoder.shape[0]:
        return state.delta[..., node.index, None] * decoder[node.index]
    return state.error_delta
