"""Finds out by behaviour what the installed transformers and helical compute wrongly for Mamba2-mRNA."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from helix_sae.models.helix.definition import recurrence
from helix_sae.models.upstream import import_helical, undisturbed_logging

_TOLERANCE = 1e-4
_EXACT = 1e-10


class Defects(NamedTuple):
    """What a class of networks, and helical's embedding of it, do wrong; every field is a finding."""

    context_is_lost: bool
    scan_wrong_past_chunk: bool
    float64_is_rounded: bool
    padding_leaks: bool
    batches_differ: bool
    embedding_is_constant: bool

    def any(self) -> bool:
        """Whether anything was found."""
        return any(self)

    def describe(self) -> str:
        """The findings in words."""
        words = {
            "context_is_lost": "earlier tokens do not reach later ones",
            "scan_wrong_past_chunk": "the scan is wrong past its first chunk",
            "float64_is_rounded": "float64 is rounded to float32",
            "padding_leaks": "padding leaks into the state",
            "batches_differ": "a sequence gives something else in a batch",
            "embedding_is_constant": (
                "helical's own get_embeddings gives every sequence the state of its masked [SEP], "
                "the same for all (embeddings are pooled over nucleotides here)"
            ),
        }
        found = [words[name] for name, is_found in self._asdict().items() if is_found]
        return "; ".join(found) if found else "no defect"


@torch.no_grad()
def diagnose(model_class: type) -> Defects:
    """Try a tiny random network of a class on known answers (milliseconds).

    Parameters
    ----------
    model_class : type
        transformers' ``Mamba2Model`` or a class like it.
    """
    with torch.random.fork_rng(devices=[]), undisturbed_logging():
        torch.manual_seed(0)
        model = tiny_network(model_class)
        errors = [_from_recurrence(model.layers[0].mixer, n) for n in (3, 4, 13)]
        exact = _from_recurrence(model.double().layers[0].mixer, 13)
        model = model.float()
        return Defects(
            context_is_lost=_context_is_lost(model),
            scan_wrong_past_chunk=max(errors) > _TOLERANCE,
            float64_is_rounded=exact > _EXACT,
            padding_leaks=_padding_leaks(model),
            batches_differ=_batches_differ(model),
            embedding_is_constant=_embedding_is_constant(model),
        )


def tiny_network(model_class: type) -> Any:
    """A network of three blocks and two groups, none of whose weights is left as at initialisation."""
    config = import_helical("mamba2_mrna.model").Mamba2Config(
        vocab_size=14, hidden_size=8, num_heads=4, head_dim=4, state_size=4, n_groups=2, expand=2,
        num_hidden_layers=3, chunk_size=4, pad_token_id=4, use_cache=False,
    )  # fmt: skip
    model: Any = model_class(config).eval().requires_grad_(False)
    for layer in model.layers:
        # A bias that is not zero, as in any trained model: it is what leaks from padding.
        nn.init.ones_(layer.mixer.conv1d.bias)
        layer.mixer.dt_bias += 3.0
        for weight in (layer.norm.weight, layer.mixer.norm.weight, layer.mixer.D):
            nn.init.uniform_(weight, 0.5, 1.5)
    return model


def plain_mixer(mixer: Any, x: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
    """A mixer by the recurrence, token by token, in float64."""
    x, wide = x.double(), {name: p.double() for name, p in mixer.named_parameters()}
    sizes = [mixer.intermediate_size, mixer.conv_dim, mixer.num_heads]
    gate, signal, step = torch.split(x @ wide["in_proj.weight"].T, sizes, dim=-1)
    kernel = wide["conv1d.weight"][:, 0]
    padded = nn.functional.pad(signal, (0, 0, kernel.shape[1] - 1, 0))
    windows = padded.unfold(1, kernel.shape[1], 1)
    signal = nn.functional.silu((windows * kernel).sum(-1) + wide["conv1d.bias"])
    groups, size = mixer.n_groups, mixer.ssm_state_size
    values, B, C = torch.split(signal, [mixer.intermediate_size, groups * size, groups * size], dim=-1)
    # Head i reads group i // (heads / groups): written out, each head has a group of its own.
    B, C = (
        m.unflatten(-1, (groups, size)).repeat_interleave(mixer.num_heads // groups, dim=2) for m in (B, C)
    )
    dt = nn.functional.softplus(step + wide["dt_bias"]).clamp(*mixer.time_step_limit)
    values = values.unflatten(-1, (mixer.num_heads, mixer.head_dim))
    y = recurrence(values, dt, -torch.exp(wide["A_log"]), B, C, wide["D"]).y.flatten(2)
    y = (y * nn.functional.silu(gate)).unflatten(-1, (groups, -1))
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + mixer.norm.variance_epsilon)
    return (y.flatten(2) * wide["norm.weight"]) @ wide["out_proj.weight"].T


def _from_recurrence(mixer: Any, time: int) -> float:
    """Largest difference of a mixer from the recurrence."""
    x = torch.randn(2, time, mixer.hidden_size, dtype=mixer.D.dtype)
    return float((mixer(x).double() - plain_mixer(mixer, x)).abs().max())


def _context_is_lost(model: Any) -> bool:
    ids = torch.tensor([[7, 8, 9, 10, 7, 8, 9, 10, 7, 7]])
    changed = torch.cat([ids[:, 1:2], ids[:, 1:]], dim=1)
    return bool(torch.equal(model(input_ids=ids)[0][:, -1], model(input_ids=changed)[0][:, -1]))


def _padding_leaks(model: Any) -> bool:
    """Whether a sequence beside masked padding on its left, or padding on its right, is another than alone."""
    ids, pad = torch.tensor([[8, 9, 10, 7, 7, 10]]), torch.full((1, 3), 4)
    alone = model(input_ids=ids)[0]
    mask = torch.tensor([[0] * 3 + [1] * 6])
    left = model(input_ids=torch.cat([pad, ids], dim=1), attention_mask=mask)[0][:, 3:]
    right = model(input_ids=torch.cat([ids, pad], dim=1))[0][:, :6]
    return not all(torch.allclose(found, alone, atol=_TOLERANCE) for found in (left, right))


def _batches_differ(model: Any) -> bool:
    ids = torch.tensor([[8, 9, 10, 7, 7, 10], [7, 7, 9, 10, 8, 8]])
    return not torch.allclose(model(input_ids=ids)[0][:1], model(input_ids=ids[:1])[0], atol=_TOLERANCE)


def _embedding_is_constant(model: Any) -> bool:
    """Whether a batch as helical collates it has one last state, which is what its ``get_embeddings`` reads."""
    helical = import_helical("mamba2_mrna.model")
    ids = [[8, 9, 10, 7, 1], [7, 7, 10, 9, 1]]  # [SEP] closes each
    rows = [{"input_ids": row, "special_tokens_mask": [0, 0, 0, 0, 1]} for row in ids]
    batch = helical.Mamba2mRNA._collate_fn(None, rows)
    last = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0][:, -1]
    return bool(torch.equal(last[0], last[1]))
