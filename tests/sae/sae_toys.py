"""Small activations with known structure, and one configuration of every architecture."""

from __future__ import annotations

import torch

from helix_sae.sae import SaeConfig, parse_sae_config
from helix_sae.sae.objective import Params
from helix_sae.sae.registry import architecture_of

D_IN = 12

CONFIGS: dict[str, SaeConfig] = {
    name: parse_sae_config({"architecture": name, **values})
    for name, values in {
        "relu": {"l1_coefficient": 2e-3},
        "relu_tied": {"l1_coefficient": 2e-3},
        "topk": {"k": 4},
        "batchtopk": {"k": 4},
        "matryoshka": {"k": 4, "prefix_shares": (0.125, 0.5, 1.0)},
        "jumprelu": {"l0_coefficient": 2e-3, "bandwidth": 0.6, "initial_threshold": 0.5},
        "gated": {"l1_coefficient": 2e-3},
    }.items()
}


def superposition(
    n: int, seed: int = 0, d_in: int = D_IN, n_features: int = 30, active: float = 3
) -> torch.Tensor:
    """Sparse mixtures of fixed directions around a mean far from 0, float32 (n, d_in)."""
    fixed = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=fixed), dim=1)
    mean = 3 * torch.randn(d_in, generator=fixed)
    drawn = torch.Generator().manual_seed(1000 + seed)
    present = torch.rand(n, n_features, generator=drawn) < active / n_features
    strength = 0.5 + torch.rand(n, n_features, generator=drawn)
    return (present * strength) @ directions + mean + 0.01 * torch.randn(n, d_in, generator=drawn)


def random_params(config: SaeConfig, seed: int = 0, bias: float = 0.0) -> Params:
    """Parameters away from the symmetric start; a negative ``bias`` makes the codes sparse."""
    generator = torch.Generator().manual_seed(seed)
    params = architecture_of(config).objective(config).initialise(generator)
    for name, value in params.items():
        noise = torch.randn(value.shape, generator=generator)
        value += (0.1 if name in ("encoder", "log_threshold", "r_mag") else 0.3) * noise
        if name in ("b_enc", "b_gate"):
            value += bias
    for name in architecture_of(config).objective.unit_rows:
        params[name] /= params[name].norm(dim=1, keepdim=True)
    return params
