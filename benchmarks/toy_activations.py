"""Activations with known structure, shared by the benchmarks and by the peer's environment (torch only)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

N_FEATURES, D_IN, ACTIVE, BATCH = 512, 256, 5.0, 2048
STEPS = {"uniform": 1000, "decay": 1500}


class Superposition:
    """Batches of sparse mixtures of known unit directions, drawn as they are asked for.

    512 features in 256 dimensions, 5 active a sample on average, strengths U(0, 1); ``uniform`` frequencies, or each
    0.99 times the one before (``decay``).
    """

    def __init__(self, frequencies: str, seed: int, steps: int | None = None, stream: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(N_FEATURES, D_IN, generator=generator)
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        chance = (0.99 if frequencies == "decay" else 1.0) ** torch.arange(N_FEATURES)
        self.chance = chance * (ACTIVE / chance.sum())
        self.stream_seed = 10_000 + 100 * seed + stream
        self.steps = STEPS[frequencies] if steps is None else steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.stream_seed)
        for _ in range(self.steps):
            present = torch.rand(BATCH, N_FEATURES, generator=generator) < self.chance
            strength = torch.rand(BATCH, N_FEATURES, generator=generator)
            yield {"toy": (present * strength) @ self.directions}


def mmcs(decoder: Tensor, directions: Tensor) -> float:
    """Mean over true directions of the largest cosine with a decoder row."""
    unit = decoder / decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return float((directions @ unit.T).amax(1).mean())


def mixtures(n: int, d_in: int, seed: int = 0) -> Tensor:
    """Superposition of 2 d_in features, 8 active a token on average, with noise; float32 (n, d_in)."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(2 * d_in, d_in, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    parts: list[Tensor] = []
    for start in range(0, n, 4096):
        rows = min(4096, n - start)
        present = torch.rand(rows, 2 * d_in, generator=generator) < 4 / d_in
        parts.append((present * torch.rand(rows, 2 * d_in, generator=generator)) @ directions)
    x = torch.cat(parts)
    return x + 0.02 * torch.randn(x.shape, generator=generator)
