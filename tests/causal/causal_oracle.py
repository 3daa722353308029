"""The slow twin of the intervention engine: one full hooked pass for each pair and feature, in plain loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from helix_sae.causal.alignment import TokenPair
from helix_sae.causal.terms import Dictionary, Positions, ReadOut
from helix_sae.models.contract import Model


def patched_tokens(pair: TokenPair, positions: Positions) -> list[tuple[int, int]]:
    """Source and target rows of the tokens that a patch may touch."""
    out = []
    for s, t, edited in zip(pair.source_row, pair.target_row, pair.edited, strict=True):
        is_nucleotide = bool(pair.source.is_nucleotide[s])
        if positions == "tokens" or (is_nucleotide and (positions == "nucleotides" or edited)):
            out.append((int(s), int(t)))
    return out


def slow_effects(
    model: Model,
    dictionary: Dictionary,
    site: str,
    probe: ReadOut,
    pairs: Sequence[TokenPair],
    positions: Positions = "nucleotides",
    start: str = "source",
) -> np.ndarray:
    """Effect of every feature and, last, the error node: (n_pairs, features + 1)."""
    rows = []
    for pair in pairs:
        ids, target_ids = (torch.from_numpy(t.ids)[None] for t in (pair.source, pair.target))
        nucleotide = torch.from_numpy(pair.source.is_nucleotide)[None]
        x, x_target = model.capture(ids, [site])[site][0], model.capture(target_ids, [site])[site][0]
        changes = _node_changes(dictionary, x, x_target, patched_tokens(pair, positions))
        total = torch.stack(changes).sum(0)

        def read(change: Tensor, ids: Tensor = ids, nucleotide: Tensor = nucleotide) -> float:
            with torch.no_grad():
                hidden = model.run(ids, {site: lambda a: a + change})
                return float(probe(model.pool(hidden, nucleotide))[0])

        unpatched, patched = read(torch.zeros_like(total)), read(total)
        if start == "source":
            rows.append([read(c) - unpatched for c in changes])
        else:
            rows.append([patched - read(total - c) for c in changes])
    return np.array(rows)


def _node_changes(
    dictionary: Dictionary, x: Tensor, x_target: Tensor, tokens: list[tuple[int, int]]
) -> list[Tensor]:
    with torch.no_grad():
        codes, target_codes = dictionary.encode(x), dictionary.encode(x_target)
        error, target_error = x - dictionary.decode(codes), x_target - dictionary.decode(target_codes)
        n = codes.shape[1]
        changes = [torch.zeros_like(x) for _ in range(n + 1)]
        zero = dictionary.decode(torch.zeros(1, n, dtype=x.dtype))[0]
        for j in range(n):
            unit = torch.zeros(1, n, dtype=x.dtype)
            unit[0, j] = 1.0
            direction = dictionary.decode(unit)[0] - zero
            for s, t in tokens:
                changes[j][s] = (target_codes[t, j] - codes[s, j]) * direction
        for s, t in tokens:
            changes[n][s] = target_error[t] - error[s]
    return changes


def slow_group(
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    probe: ReadOut,
    pair: TokenPair,
    nodes: Mapping[str, np.ndarray],
    positions: Positions = "nucleotides",
) -> float:
    """Read-out with sets of nodes at several sites overwritten by the target's values, token by token."""
    ids, target_ids = (torch.from_numpy(t.ids)[None] for t in (pair.source, pair.target))
    nucleotide = torch.from_numpy(pair.source.is_nucleotide)[None]
    targets = model.capture(target_ids, list(nodes))
    tokens = patched_tokens(pair, positions)

    def edit(site: str):
        dictionary, keep = dictionaries[site], nodes[site]

        def apply(activation: Tensor) -> Tensor:
            out = activation.clone()
            for s, t in tokens:
                x, x_target = activation[0, s : s + 1], targets[site][0, t : t + 1]
                codes, target_codes = dictionary.encode(x), dictionary.encode(x_target)
                chosen = torch.where(torch.from_numpy(keep[:-1]), target_codes, codes)
                error = (
                    (x_target - dictionary.decode(target_codes)) if keep[-1] else x - dictionary.decode(codes)
                )
                out[0, s : s + 1] = dictionary.decode(chosen) + error
            return out

        return apply

    with torch.no_grad():
        hidden = model.run(ids, {site: edit(site) for site in nodes})
        return float(probe(model.pool(hidden, nucleotide))[0])
