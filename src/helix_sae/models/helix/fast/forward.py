"""What Helix-mRNA's modules compute: the forwards that :func:`helix_sae.models.helix.mending.mend` puts in place of helical's.

Each takes the place of the method of the same module in ``helical.models.helix_mrna.modeling_helix_mrna``,
with its arguments. Everything runs in the weights' precision except norms and the scan, which take at least
float32. What is computed is :mod:`helix_sae.models.helix.definition`'s; in which form,
:mod:`helix_sae.models.helix.fast.choice` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helix_sae.models.contract import widened
from helix_sae.models.helix.fast.choice import (
    activated_convolution,
    convolution,
    fuses,
    is_silu,
    linear,
    norm,
    scan_outputs,
)
from helix_sae.models.helix.fast.hooks import is_watched
from helix_sae.models.helix.fast.linear import gated_unit, linear_silu
from helix_sae.models.helix.fast.scan import final_state
from helix_sae.models.upstream import import_helical


class MixerState(NamedTuple):
    """What a mixer has to know of the tokens before the first it is given.

    Attributes
    ----------
    tail : float (batch, kernel - 1, conv_dim)
        The last inputs of its convolution; zeros before the first token of the sequence.
    state : float (batch, heads, state, head_dim)
        The state of its scan.
    """

    tail: Float[Tensor, "batch kernel_minus_1 conv_dim"]
    state: Float[Tensor, "batch heads state head_dim"]

    def map(self, function: Callable[[Tensor], Tensor]) -> MixerState:
        """The same state with a function applied to both arrays."""
        return MixerState(function(self.tail), function(self.state))


class AttentionState(NamedTuple):
    """Keys and values of the tokens before the first that attention is given.

    Attributes
    ----------
    keys, values : float (batch, key_value_heads, start, head_dim)
    """

    keys: Float[Tensor, "batch key_value_heads start head_dim"]
    values: Float[Tensor, "batch key_value_heads start head_dim"]

    def map(self, function: Callable[[Tensor], Tensor]) -> AttentionState:
        """The same state with a function applied to both arrays."""
        return AttentionState(function(self.keys), function(self.values))

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones last: what upstream's attention asks of a cache."""
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)


def chained_forward(
    self: Any,
    input_ids: Int[Tensor, "batch time"] | None = None,
    inputs_embeds: Float[Tensor, "batch time hidden"] | None = None,
    use_cache: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    cache_position: Tensor | None = None,
    attention_mask: Int[Tensor, "batch time"] | None = None,
    past_key_values: None = None,
    position_ids: Tensor | None = None,
    output_attentions: bool | None = None,
    **kwargs: object,
) -> Any:
    """``HelixmRNAPretrainedModel.forward`` with its layers chained.

    Rows padded on the left are rolled so that their padding stands on the right, where a causal model cannot
    feel it, and rolled back at the end. Decoding with a cache is not offered: upstream's raises on the
    attention layer.

    Raises
    ------
    ValueError
        If not exactly one of ``input_ids`` and ``inputs_embeds`` is given, or a cache is asked for.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("Give exactly one of input_ids and inputs_embeds.")
    if past_key_values is not None or use_cache:
        raise ValueError("Decoding with a cache is not supported; pass use_cache=False.")
    hidden = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
    shifts = _left_padding(attention_mask)
    hidden = _roll_rows(hidden, shifts)
    wanted_all = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
    all_hidden: list[Tensor] = []
    attentions: list[Tensor] = []
    for layer in self.layers:
        outputs = apply_layer(layer, hidden, output_attentions=bool(output_attentions))
        hidden = outputs[0]
        if wanted_all:
            all_hidden.append(hidden)
        if output_attentions and len(outputs) > 1 and outputs[1] is not None:
            attentions.append(outputs[1])
    hidden = self.norm_f(hidden)
    restored = [_roll_rows(h, None if shifts is None else -shifts) for h in (hidden, *all_hidden)]
    hidden, layer_states = restored[0], (*restored[1:], restored[0])
    as_dict = self.config.use_return_dict if return_dict is None else return_dict
    if not as_dict:
        extras = ((layer_states,) if wanted_all else ()) + ((tuple(attentions),) if attentions else ())
        return (hidden, *extras)
    return import_helical("helix_mrna.modeling_helix_mrna").HelixmRNAOutput(
        last_hidden_state=hidden,
        hidden_states=layer_states if wanted_all else None,
        attentions=tuple(attentions) if attentions else None,
    )


def apply_layer(
    layer: nn.Module,
    hidden: Float[Tensor, "batch time hidden"],
    output_attentions: bool = False,
    state: MixerState | AttentionState | None = None,
) -> tuple[Any, ...]:
    """Run one block on a causal, unpadded (or right-padded) batch; the first element is the residual stream after it.

    With a ``state`` the batch is the continuation of sequences whose earlier tokens left that state.
    """
    return layer(
        hidden,
        attention_mask=_attention_mask(layer, hidden, output_attentions, state),
        position_ids=None,
        past_key_value=state,
        output_attentions=output_attentions,
        use_cache=False,
        cache_position=None,
    )


def attend(
    layer: Any, residual: Float[Tensor, "batch time hidden"], state: MixerState | AttentionState | None = None
) -> Float[Tensor, "batch time hidden"]:
    """The residual stream between the attention and the feed-forward of an attention block."""
    attended = layer.self_attn(
        hidden_states=layer.input_layernorm(residual),
        attention_mask=_attention_mask(layer, residual, False, state),
        past_key_value=state,
    )
    return residual + attended[0]


def feed_on(layer: Any, middle: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
    """The residual stream after an attention block, from that between its attention and its feed-forward."""
    return middle + layer.feed_forward(layer.pre_ff_layernorm(middle))[0]


def mixer_forward(
    self: Any,
    hidden_states: Float[Tensor, "batch time hidden"],
    cache_params: MixerState | None = None,
    cache_position: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> Float[Tensor, "batch time hidden"]:
    """``Mamba2Mixer.forward`` with the chunked matmul scan.

    ``cache_params`` is the state to go on from. ``attention_mask`` is ignored: :func:`chained_forward` has
    moved any padding to the right, where causality makes it harmless.
    """
    tail, state = (None, None) if cache_params is None else cache_params
    is_gated = _fuses_gate(self, hidden_states)
    gate, signal, step = (_gated_projections if is_gated else _projections)(self, hidden_states)
    x, dt, A, B, C = _scan_inputs(self, activated_convolution(signal, self.conv1d, self.act, tail), step)
    y = scan_outputs(x, dt, A, B, C, widened(self.D), initial_state=state).flatten(2)
    return self.out_proj(norm(gate.mul_(y), self.norm) if is_gated else self.norm(y, gate))


def norm_forward(self: Any, hidden_states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """``Mamba2RMSNorm.forward``, given out in the precision of its weight.

    Upstream's keeps that of its input, a float32 residual stream, which the bfloat16 matrices after it cannot
    take.
    """
    return norm(hidden_states, self)


def gated_norm_forward(
    self: Any, hidden_states: Float[Tensor, "*batch width"], gate: Float[Tensor, "*batch width"]
) -> Float[Tensor, "*batch width"]:
    """``MambaRMSNormGated.forward``: the norm of ``hidden * silu(gate)``."""
    return norm(widened(hidden_states) * nn.functional.silu(widened(gate)), self)


def feed_forward(
    self: Any, hidden_state: Float[Tensor, "*batch width"], **kwargs: object
) -> tuple[Float[Tensor, "*batch width"]]:
    """``HelixmRNAMLP.forward``: a gated linear unit."""
    parts = (self.gate_proj, self.up_proj, self.down_proj)
    if is_silu(self.act_fn) and fuses(hidden_state, *parts):
        return (gated_unit(hidden_state, *(part.weight for part in parts)),)
    return (self.down_proj(self.act_fn(self.gate_proj(hidden_state)) * self.up_proj(hidden_state)),)


def mixer_state(block: Any, residual: Float[Tensor, "batch start hidden"]) -> MixerState:
    """The state that a mixer block hands on after the tokens whose residual stream enters it."""
    mixer = block.mixer
    _, signal, step = _projections(mixer, block.norm(residual))
    kept = mixer.conv_kernel_size - 1
    tail = signal[:, max(0, signal.shape[1] - kept) :]
    tail = nn.functional.pad(tail, (0, 0, kept - tail.shape[1], 0))
    convolved = mixer.act(convolution(signal, mixer.conv1d.weight, mixer.conv1d.bias))
    x, dt, A, B, _ = _scan_inputs(mixer, convolved, step)
    return MixerState(tail, final_state(x, dt, A, B))


def attention_state(block: Any, residual: Float[Tensor, "batch start hidden"]) -> AttentionState:
    """Keys and values of the tokens whose residual stream enters an attention block."""
    attention, normed = block.self_attn, block.input_layernorm(residual)
    shape = (*normed.shape[:2], attention.num_key_value_heads, attention.head_dim)
    return AttentionState(
        attention.k_proj(normed).view(shape).transpose(1, 2),
        attention.v_proj(normed).view(shape).transpose(1, 2),
    )


def block_state(
    layer: Any, residual: Float[Tensor, "batch start hidden"]
) -> MixerState | AttentionState | None:
    """What a block hands on after the tokens whose residual stream enters it; None for one without memory."""
    if hasattr(layer, "mixer"):
        return mixer_state(layer, residual)
    return attention_state(layer, residual) if hasattr(layer, "self_attn") else None


def _projections(mixer: Any, hidden: Float[Tensor, "batch time hidden"]) -> tuple[Tensor, Tensor, Tensor]:
    """Gate, input of the convolution, and steps."""
    sizes = [mixer.intermediate_size, mixer.conv_dim, mixer.num_heads]
    gate, signal, step = torch.split(mixer.in_proj(hidden), sizes, dim=-1)
    return gate, signal, step


def _fuses_gate(mixer: Any, hidden: Float[Tensor, "batch time hidden"]) -> bool:
    """Whether the SiLU of the gate may be computed inside its product, and the norm applied to what is gated already."""
    is_gated_norm = type(mixer.norm).__name__ == "MambaRMSNormGated" and not is_watched(mixer.norm)
    return is_gated_norm and fuses(hidden, mixer.in_proj)


def _gated_projections(
    mixer: Any, hidden: Float[Tensor, "batch time hidden"]
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_projections` with the SiLU of the gate in its product."""
    weight, inner, inputs = mixer.in_proj.weight, mixer.intermediate_size, mixer.conv_dim
    # Two products, as the convolution would copy an input that is part of a wider one.
    signal = linear(hidden, weight[inner : inner + inputs])
    return linear_silu(hidden, weight[:inner]), signal, linear(hidden, weight[inner + inputs :])


def _scan_inputs(
    mixer: Any, convolved: Float[Tensor, "batch time conv_dim"], step: Float[Tensor, "batch time heads"]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``x, dt, A, B, C`` of :func:`helix_sae.models.helix.fast.choice.scan_outputs`."""
    batch, time, _ = convolved.shape
    groups, state = mixer.n_groups, mixer.ssm_state_size
    x, B, C = torch.split(
        widened(convolved), [mixer.intermediate_size, groups * state, groups * state], dim=-1
    )
    dt = nn.functional.softplus(widened(step) + widened(mixer.dt_bias)).clamp(min=mixer.time_step_min)
    return (
        x.view(batch, time, mixer.num_heads, mixer.head_dim),
        dt,
        -torch.exp(widened(mixer.A_log)),
        B.view(batch, time, groups, state),
        C.view(batch, time, groups, state),
    )


def _attention_mask(
    layer: nn.Module, hidden: Tensor, output_attentions: bool, state: MixerState | AttentionState | None
) -> Float[Tensor, "1 1 time keys"] | None:
    """The causal mask, where the attention of a block needs to be given one.

    The classes for ``sdpa`` and flash attention are causal by themselves; the eager one attends everywhere.
    With keys from before the batch, ``sdpa`` would put the diagonal in the wrong corner.
    """
    attention = getattr(layer, "self_attn", None)
    if attention is None:
        return None
    eager = output_attentions or type(attention).__name__ == "HelixmRNAAttention"
    flash = type(attention).__name__ == "HelixmRNAFlashAttention2"
    start = state.keys.shape[2] if isinstance(state, AttentionState) else 0
    if not eager and (flash or start == 0):
        return None
    time = hidden.shape[1]
    blocked = torch.ones(time, start + time, dtype=torch.bool, device=hidden.device).triu(start + 1)
    dtype = attention.q_proj.weight.dtype
    return torch.zeros(blocked.shape, dtype=dtype, device=hidden.device).masked_fill(
        blocked, torch.finfo(dtype).min
    )[None, None]


def _left_padding(mask: Int[Tensor, "batch time"] | None) -> Int[Tensor, " batch"] | None:
    """How many leading positions of each row are masked; None when no row has any."""
    if mask is None:
        return None
    leading = (mask != 0).int().argmax(dim=1)
    return leading if bool((leading > 0).any()) else None


def _roll_rows(x: Float[Tensor, "batch time hidden"], shift: Int[Tensor, " batch"] | None) -> Tensor:
    """Rotate each row towards its start by its own shift."""
    if shift is None:
        return x
    time = x.shape[1]
    index = (torch.arange(time, device=x.device) + shift[:, None]) % time
    return x.gather(1, index.unsqueeze(-1).expand_as(x))
