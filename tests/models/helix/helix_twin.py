"""Helix-mRNA written out plainly in float64: the oracle of every fast path, and tiny networks to try it on.

Nothing here is shared with the package but the weights: the recurrence runs token by token, attention is a softmax over an
explicit mask, and each block is the few lines that its definition takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from helix_sae.models.helix.architecture import Architecture, build_network
from helix_sae.models.helix.model import HelixModel

LAYERS = "M+M*+"
LETTER_IDS = torch.tensor([7, 8, 9, 10])

Edit = Callable[[Tensor], Tensor]


def tiny_network(layers: str = LAYERS, *, n_groups: int = 1, seed: int = 0) -> nn.Module:
    """A mended network of a few thousand weights, none of them left at zero or one as at initialisation."""
    architecture = Architecture(
        hidden_size=16,
        head_dim=8,
        state_size=5,
        n_groups=n_groups,
        attention_heads=4,
        key_value_heads=2,
        layers=layers,
    )
    network = build_network(architecture, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        network.embeddings.weight.normal_(generator=generator)
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and "dt_bias" not in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            if name.endswith("dt_bias"):
                parameter += torch.randn(parameter.shape, generator=generator).abs() + 2
    return network.requires_grad_(False)


def tiny_model(layers: str = LAYERS, *, n_groups: int = 1, seed: int = 0) -> HelixModel:
    return HelixModel(tiny_network(layers, n_groups=n_groups, seed=seed), fingerprint="tiny", heads=None)


def random_ids(batch: int, time: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return LETTER_IDS[torch.from_numpy(rng.integers(0, 4, size=(batch, time)))]


def twin_hidden(network: nn.Module, ids: Tensor, edits: Mapping[str, Edit] | None = None) -> Tensor:
    """Last hidden states of a (batch, time) of ids without padding, in float64."""
    edits = edits or {}
    with torch.no_grad():
        x = _edited(edits, "embeddings", network.embeddings.weight.double()[ids])
        for k, layer in enumerate(network.layers):
            x = _edited(edits, f"layers.{k}", _block(layer, x, k, edits))
        return _rms(x, network.norm_f)


def twin_mixer(mixer: nn.Module, x: Tensor) -> Tensor:
    """One Mamba-2 mixer."""
    inner, heads, size, groups = (
        mixer.intermediate_size,
        mixer.num_heads,
        mixer.ssm_state_size,
        mixer.n_groups,
    )
    projected = _linear(x, mixer.in_proj)
    gate, signal, step = projected.split([inner, mixer.conv_dim, heads], dim=-1)
    signal = _silu(_convolve(signal, mixer.conv1d))
    values, into, out_of = signal.split([inner, groups * size, groups * size], dim=-1)
    dt = torch.log1p(torch.exp(step + mixer.dt_bias.double())).clamp(min=mixer.time_step_min)
    rate = -torch.exp(mixer.A_log.double())
    y = torch.zeros(*x.shape[:2], inner, dtype=torch.float64)
    for b in range(x.shape[0]):
        for head in range(heads):
            group = head % groups
            columns = slice(head * mixer.head_dim, (head + 1) * mixer.head_dim)
            within = slice(group * size, (group + 1) * size)
            state = torch.zeros(size, mixer.head_dim, dtype=torch.float64)
            for t in range(x.shape[1]):
                value = values[b, t, columns]
                state = torch.exp(dt[b, t, head] * rate[head]) * state
                state = state + dt[b, t, head] * torch.outer(into[b, t, within], value)
                y[b, t, columns] = out_of[b, t, within] @ state + mixer.D.double()[head] * value
    return _linear(_rms(y * _silu(gate), mixer.norm), mixer.out_proj)


def _block(layer: nn.Module, x: Tensor, k: int, edits: Mapping[str, Edit]) -> Tensor:
    if hasattr(layer, "mixer"):
        return x + _edited(edits, f"layers.{k}.mixer", twin_mixer(layer.mixer, _rms(x, layer.norm)))
    norm = layer.input_layernorm
    if hasattr(layer, "self_attn"):
        x = x + _edited(edits, f"layers.{k}.self_attn", _attention(layer.self_attn, _rms(x, norm)))
        norm = layer.pre_ff_layernorm
    return x + _edited(edits, f"layers.{k}.feed_forward", _feed_forward(layer.feed_forward, _rms(x, norm)))


def _attention(attention: nn.Module, x: Tensor) -> Tensor:
    batch, time, _ = x.shape
    size = attention.head_dim
    query, key, value = (
        _linear(x, p).view(batch, time, -1, size).transpose(1, 2)
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    shared = attention.num_heads // attention.num_key_value_heads
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scores = query @ key.transpose(-1, -2) / math.sqrt(size)
    allowed = torch.arange(time)[:, None] >= torch.arange(time)[None, :]
    weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1)
    return _linear((weights @ value).transpose(1, 2).reshape(batch, time, -1), attention.o_proj)


def _feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    return _linear(_silu(_linear(x, mlp.gate_proj)) * _linear(x, mlp.up_proj), mlp.down_proj)


def _convolve(x: Tensor, convolution: nn.Conv1d) -> Tensor:
    weight, bias = convolution.weight.double()[:, 0], convolution.bias.double()
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        out[:, t] = bias
        for lag in range(weight.shape[1]):
            if t - lag >= 0:
                out[:, t] += x[:, t - lag] * weight[:, weight.shape[1] - 1 - lag]
    return out


def _linear(x: Tensor, linear: nn.Linear) -> Tensor:
    out = x @ linear.weight.double().T
    return out if linear.bias is None else out + linear.bias.double()


def _rms(x: Tensor, norm: nn.Module) -> Tensor:
    return norm.weight.double() * x / torch.sqrt((x**2).mean(-1, keepdim=True) + norm.variance_epsilon)


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _edited(edits: Mapping[str, Edit], site: str, activation: Tensor) -> Tensor:
    return edits[site](activation) if site in edits else activation
