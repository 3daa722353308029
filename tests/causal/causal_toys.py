"""Small models and dictionaries whose causes are known, with the interface of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helix_sae.errors import UnknownSiteError
from helix_sae.models.contract import StillTokens

Layer = Callable[[Tensor], Tensor]
"""From the residual stream, (batch, time, width), to what the block adds to it."""

N_TOKENS = 14


class ToyCache(NamedTuple):
    residual: tuple[Tensor, ...]

    def rows(self, index: Tensor) -> ToyCache:
        return ToyCache(tuple(r.index_select(0, index) for r in self.residual))


class ToyPrefix(NamedTuple):
    """The whole cache, and where the suffix starts; the toy runs all of it and hands out the end."""

    cache: ToyCache
    start: int
    index: Tensor | None = None

    def rows(self, index: Tensor) -> ToyPrefix:
        return self._replace(index=index)

    def picked(self) -> ToyCache:
        return self.cache if self.index is None else self.cache.rows(self.index)


class ToyChain:
    """A residual chain of plain functions. Sites: ``embeddings``, ``layers.k.mixer`` (the increment), ``layers.k``."""

    fingerprint = "toy"

    def __init__(self, embedding: Tensor, layers: Sequence[Layer]) -> None:
        self.embedding, self.layers = embedding, layers
        names = [(f"layers.{k}.mixer", f"layers.{k}") for k in range(len(layers))]
        self.site_names = ("embeddings", *(name for pair in names for name in pair))
        self._edits: dict[str, Callable[[Tensor], Tensor]] = {}
        self.n_sequences = 0  # sequences that went through at least one block, for counting passes

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def check_sites(self, sites: Sequence[str]) -> None:
        unknown = [s for s in sites if s not in self.site_names]
        if unknown:
            raise UnknownSiteError(f"no site {unknown}; there are {self.site_names}")

    @contextmanager
    def edited(self, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
        before, self._edits = self._edits, {**self._edits, **edits}
        try:
            yield
        finally:
            self._edits = before

    def _at(self, site: str, value: Tensor) -> Tensor:
        return self._edits[site](value) if site in self._edits else value

    def _block(self, k: int, residual: Tensor) -> Tensor:
        return self._at(f"layers.{k}", residual + self._at(f"layers.{k}.mixer", self.layers[k](residual)))

    def cache(self, ids: Tensor) -> ToyCache:
        residual = [self._at("embeddings", self.embedding[ids])]
        for k in range(len(self.layers)):
            residual.append(self._block(k, residual[-1]))
        return ToyCache(tuple(residual))

    def at_site(self, site: str, cache: ToyCache) -> Tensor:
        if site == "embeddings":
            return cache.residual[0]
        k = int(site.split(".")[1])
        return self.layers[k](cache.residual[k]) if site.endswith("mixer") else cache.residual[k + 1]

    def capture(self, ids: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
        self.check_sites(sites)
        with torch.no_grad():
            cache = self.cache(ids)
            return {site: self.at_site(site, cache) for site in sites}

    def run(self, ids: Tensor, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Tensor:
        with self.edited(edits):
            return self.cache(ids).residual[-1]

    def resume(
        self,
        site: str,
        value: Tensor,
        cache: ToyCache,
        hooks: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> Tensor:
        self.n_sequences += len(value)
        k = -1 if site == "embeddings" else int(site.split(".")[1])
        residual = cache.residual[k] + value if site.endswith("mixer") else value
        with self.edited(hooks or {}):
            if site.endswith("mixer"):
                residual = self._at(f"layers.{k}", residual)
            for j in range(k + 1, len(self.layers)):
                residual = self._block(j, residual)
        return residual

    def prefix_states(self, cache: ToyCache, start: int) -> ToyPrefix:
        return ToyPrefix(cache, start)

    def resume_suffix(
        self,
        site: str,
        value: Tensor,
        prefix: ToyPrefix,
        hooks: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        changed: Tensor | None = None,
        still: StillTokens | None = None,
    ) -> Tensor:
        cache, start = prefix.picked(), prefix.start

        def behind(hook: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda x: torch.cat([x[:, :start], hook(x[:, start:])], dim=1)

        whole = torch.cat([self.at_site(site, cache)[:, :start], value], dim=1)
        return self.resume(site, whole, cache, {s: behind(h) for s, h in (hooks or {}).items()})[:, start:]

    def pool_suffix(self, hidden: Tensor, prefix: ToyPrefix, is_nucleotide: Tensor) -> Tensor:
        cache = prefix.picked()
        mask = is_nucleotide if prefix.index is None else is_nucleotide[prefix.index]
        return self.pool(torch.cat([cache.residual[-1][:, : prefix.start], hidden], dim=1), mask)

    def pool(self, hidden: Tensor, is_nucleotide: Tensor) -> Tensor:
        weights = is_nucleotide.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


class LinearDictionary:
    """Codes are coordinates along the rows of a matrix with orthonormal rows (all of the space or a part)."""

    def __init__(self, rows: Tensor, rectify: bool = False) -> None:
        self.rows, self.rectify = rows, rectify

    def encode(self, x: Tensor) -> Tensor:
        codes = x @ self.rows.T
        return torch.relu(codes) if self.rectify else codes

    def decode(self, codes: Tensor) -> Tensor:
        return codes @ self.rows


class RandomSae(nn.Module):
    """An untrained ReLU autoencoder with a scaled input: overcomplete, with a reconstruction error."""

    def __init__(self, width: int, features: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.W_dec = nn.functional.normalize(torch.randn(features, width, generator=generator), dim=1)
        self.bias = 0.1 * torch.randn(features, generator=generator)
        self.scale = 2.0

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(x * self.scale @ self.W_dec.T + self.bias)

    def decode(self, codes: Tensor) -> Tensor:
        return 0.3 * (codes @ self.W_dec + 0.2) / self.scale


class LinearReadOut:
    """``<w, embedding>`` with a Gaussian divergence."""

    def __init__(self, weight: Tensor, variance: float = 1.0) -> None:
        self.weight, self.variance = weight, variance

    def __call__(self, embedding: Tensor) -> Tensor:
        return embedding @ self.weight.to(embedding.dtype)

    def divergence(self, y: Tensor, y_target: Tensor) -> Tensor:
        return (y - y_target).square() / (2 * self.variance)


def causal_mean(x: Tensor) -> Tensor:
    """Mean over the tokens so far."""
    count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    return x.cumsum(1) / count[:, None]


def random_chain(width: int = 6, n_layers: int = 3, seed: int = 0) -> ToyChain:
    """A causal chain with a nonlinearity that mixes tokens and channels."""
    generator = torch.Generator().manual_seed(seed)

    def layer() -> Layer:
        first = torch.randn(width, width, generator=generator) / width**0.5
        last = torch.randn(width, width, generator=generator) / width**0.5
        return lambda x: torch.tanh(causal_mean(x) @ first) @ last

    return ToyChain(torch.randn(N_TOKENS, width, generator=generator), [layer() for _ in range(n_layers)])


def pair_table(
    n: int,
    rng: np.random.Generator,
    *,
    length: int = 20,
    edits: int = 2,
    cds: bool = True,
    n_clusters: int | None = None,
) -> pd.DataFrame:
    """Random substitution pairs in the schema of :mod:`helix_sae.causal.pairs`."""
    rows = []
    for i in range(n):
        size = length + int(rng.integers(0, 3))
        source = rng.choice(list("ACGU"), size=size)
        target = source.copy()
        at = np.sort(rng.choice(size, size=edits, replace=False))
        for p in at:
            target[p] = rng.choice([x for x in "ACGU" if x != source[p]])
        start = size - 9 if cds else pd.NA
        rows.append(
            {
                "pair_id": f"p{i}",
                "source_id": f"p{i}:a",
                "target_id": f"p{i}:b",
                "source_sequence": "".join(source),
                "target_sequence": "".join(target),
                "source_cds_start": start,
                "source_cds_end": pd.NA,
                "target_cds_start": start,
                "target_cds_end": pd.NA,
                "cluster": f"c{i if n_clusters is None else i % n_clusters}",
                "kind": "random",
                "role": "effect",
                "is_sham": False,
                "edit_positions": at.tolist(),
                "edit_distance": edits,
                "has_indel": False,
                "difference": float(rng.normal()),
                "difference_kind": "measured",
                "split": "discovery" if i % 2 == 0 else "validation",
            }
        )
    return pd.DataFrame(rows)
