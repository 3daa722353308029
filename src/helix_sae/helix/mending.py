"""Makes helical's Helix-mRNA compute what its architecture says.

helical 2.2 cuts the chain of layers, scans wrongly past the first chunk and lets left padding leak into the state. The
network's modules and weights are right; only its ``forward`` is not. :func:`mend` gives the same ``nn.Module`` object a
corrected ``forward`` (parameter names, hooks and module paths stay), after :func:`diagnose` has found out by behaviour,
on a tiny network of the same class, which of the defects the installed helical has.
"""

from __future__ import annotations

import logging
from types import MethodType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helix_sae.helix.scan import chunked_scan, recurrence
from helix_sae.helix.upstream import import_modeling, import_submodule, undisturbed_logging

LOGGER = logging.getLogger(__name__)

_TOLERANCE = 1e-4


class Defects(NamedTuple):
    """What the installed helical does wrong; every field is a finding, not an assumption."""

    layers_not_chained: bool
    scan_wrong_past_chunk: bool
    left_padding_leaks: bool

    def any(self) -> bool:
        """Whether anything was found."""
        return any(self)

    def describe(self) -> str:
        """The findings in words."""
        words = {
            "layers_not_chained": "layers are not chained",
            "scan_wrong_past_chunk": "the scan is wrong past its first chunk",
            "left_padding_leaks": "left padding leaks into the state",
        }
        found = [words[name] for name, is_found in self._asdict().items() if is_found]
        return "; ".join(found) if found else "no defect"


def mend(module: nn.Module) -> Defects:
    """Correct a ``HelixmRNAPretrainedModel`` in place and say so once in the log.

    The matmul scan is put in whether or not the upstream one is right: it is also some thirty times faster on a CPU.
    Mending a module twice changes nothing.

    Returns
    -------
    Defects
        What the upstream code was found to do wrong.
    """
    defects = diagnose(type(module))
    mixer_class = import_modeling().Mamba2Mixer
    for child in module.modules():
        if isinstance(child, mixer_class):
            child.forward = MethodType(mixer_forward, child)
    module.forward = MethodType(chained_forward, module)
    if not getattr(module, "_helix_sae_mended", False):
        module._helix_sae_mended = True  # type: ignore[assignment]
        LOGGER.info("Helix-mRNA: helical's forward has %s; corrected, and scanning by matrix products.", defects.describe())
    return defects


def mixer_forward(
    self: Any,
    hidden_states: Float[Tensor, "batch time hidden"],
    cache_params: None = None,
    cache_position: Tensor | None = None,
    attention_mask: Tensor | None = None,
) -> Float[Tensor, "batch time hidden"]:
    """``Mamba2Mixer.forward`` with the chunked matmul scan.

    ``attention_mask`` is ignored: :func:`chained_forward` has moved any padding to the right, where causality makes it
    harmless.
    """
    inner, outer = self.in_proj, self.out_proj
    projected = inner(hidden_states)
    gate, convolved, step = torch.split(projected, [self.intermediate_size, self.conv_dim, self.num_heads], dim=-1)
    convolved = self.act(causal_convolution(convolved, self.conv1d.weight, self.conv1d.bias))
    y, _ = scan_heads(self, convolved, step)
    return outer(self.norm(y, gate).to(outer.weight.dtype))


def causal_convolution(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    *,
    tail: Float[Tensor, "batch kernel_minus_1 channels"] | None = None,
) -> Float[Tensor, "batch time channels"]:
    """Depthwise causal convolution, channels last: a sum of shifted products, without a transpose.

    ``tail`` holds the inputs just before ``x``; zeros when absent.
    """
    kernel, time = weight.shape[-1], x.shape[1]
    if tail is None:
        padded = nn.functional.pad(x, (0, 0, kernel - 1, 0))
    else:
        padded = torch.cat([tail.to(x.dtype), x], dim=1)
    out = padded[:, kernel - 1 :] * weight[:, 0, kernel - 1]
    if bias is not None:
        out = out + bias
    for k in range(kernel - 1):
        out = torch.addcmul(out, padded[:, k : k + time], weight[:, 0, k])
    return out


def scan_heads(
    mixer: Any,
    convolved: Float[Tensor, "batch time conv_dim"],
    step: Float[Tensor, "batch time heads"],
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> tuple[Float[Tensor, "batch time inner"], Float[Tensor, "batch heads state head_dim"]]:
    """The scan of one mixer, from its convolved projections; also the state after the last token."""
    batch, time, _ = convolved.shape
    groups, state = mixer.n_groups, mixer.ssm_state_size
    x, B, C = torch.split(convolved.float(), [mixer.intermediate_size, groups * state, groups * state], dim=-1)
    dt = nn.functional.softplus(step.float() + mixer.dt_bias.float()).clamp(min=mixer.time_step_min)
    result = chunked_scan(
        x.reshape(batch, time, mixer.num_heads, mixer.head_dim),
        dt,
        -torch.exp(mixer.A_log.float()),
        B.reshape(batch, time, groups, state),
        C.reshape(batch, time, groups, state),
        mixer.D.float(),
        initial_state=initial_state,
    )
    return result.y.reshape(batch, time, -1), result.state


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

    Rows padded on the left are rolled so that their padding stands on the right, where a causal model cannot feel it,
    and rolled back at the end. Decoding with a cache is not offered: upstream's raises on the attention layer.

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
    return import_modeling().HelixmRNAOutput(
        last_hidden_state=hidden,
        hidden_states=layer_states if wanted_all else None,
        attentions=tuple(attentions) if attentions else None,
    )


def apply_layer(
    layer: nn.Module, hidden: Float[Tensor, "batch time hidden"], output_attentions: bool = False
) -> tuple[Any, ...]:
    """Run one block on a causal, unpadded (or right-padded) batch; the first element is the residual stream after it."""
    attention = getattr(layer, "self_attn", None)
    mask = None
    if attention is not None and (output_attentions or _needs_explicit_mask(attention)):
        time = hidden.shape[1]
        blocked = torch.ones(time, time, dtype=torch.bool, device=hidden.device).triu(1)
        mask = torch.zeros(1, 1, time, time, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(blocked, torch.finfo(hidden.dtype).min)
    return layer(
        hidden,
        attention_mask=mask,
        position_ids=None,
        past_key_value=None,
        output_attentions=output_attentions,
        use_cache=False,
        cache_position=None,
    )


def _needs_explicit_mask(attention: nn.Module) -> bool:
    """The eager class attends everywhere unless it is given a mask; the others are causal by themselves."""
    return type(attention).__name__ == "HelixmRNAAttention"


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


def diagnose(model_class: type) -> Defects:
    """Find out what the installed helical does wrong, on a tiny random network of the same class (milliseconds)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), undisturbed_logging():
        torch.manual_seed(0)
        model = model_class(_tiny_config()).eval()
        return Defects(
            layers_not_chained=_layers_not_chained(model),
            scan_wrong_past_chunk=_scan_wrong_past_chunk(model.layers[0].mixer),
            left_padding_leaks=_left_padding_leaks(model),
        )


def _tiny_config() -> Any:
    config_class = import_submodule("helix_mrna_pretrained_config").HelixmRNAPretrainedConfig
    return config_class(
        vocab_size=14,
        hidden_size=8,
        num_heads=2,
        head_dim=8,
        state_size=4,
        n_groups=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=3,
        layers_block_type="M*+",
        chunk_size=4,
        use_cache=False,
        attn_implementation="sdpa",
    )


def _layers_not_chained(model: Any) -> bool:
    """Whether noise added to the first mixer's output fails to reach the final embedding."""
    ids = torch.tensor([[7, 8, 9, 10, 7, 8]])
    clean = model(input_ids=ids, use_cache=False)[0]
    handle = model.layers[0].mixer.register_forward_hook(lambda _m, _i, out: out + 1.0)
    try:
        noisy = model(input_ids=ids, use_cache=False)[0]
    finally:
        handle.remove()
    return bool(torch.equal(clean, noisy))


def _scan_wrong_past_chunk(mixer: Any) -> bool:
    """Whether the mixer differs from the plain recurrence on a sequence of several chunks."""
    x = torch.randn(2, 3 * mixer.chunk_size + 1, mixer.hidden_size)
    upstream = mixer(x)
    gate, convolved, step = torch.split(mixer.in_proj(x), [mixer.intermediate_size, mixer.conv_dim, mixer.num_heads], -1)
    convolved = mixer.act(causal_convolution(convolved, mixer.conv1d.weight, mixer.conv1d.bias))
    state = mixer.n_groups * mixer.ssm_state_size
    parts = torch.split(convolved, [mixer.intermediate_size, state, state], dim=-1)
    heads, B, C = (p.reshape(*p.shape[:2], -1, size) for p, size in zip(parts, _sizes(mixer), strict=True))
    dt = nn.functional.softplus(step + mixer.dt_bias).clamp(min=mixer.time_step_min)
    y = recurrence(heads, dt, -torch.exp(mixer.A_log.float()), B, C, mixer.D).y
    plain = mixer.out_proj(mixer.norm(y.flatten(2), gate))
    return not torch.allclose(upstream, plain, atol=_TOLERANCE)


def _sizes(mixer: Any) -> tuple[int, int, int]:
    return mixer.head_dim, mixer.ssm_state_size, mixer.ssm_state_size


def _left_padding_leaks(model: Any) -> bool:
    """Whether a left-padded row of a batch differs from the same sequence alone, in the first mixer's output."""
    mixer, embeddings, norm = model.layers[0].mixer, model.embeddings, model.layers[0].norm
    single = torch.tensor([[8, 9, 10]])
    padded = torch.tensor([[1, 1, 8, 9, 10], [7, 7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    # A bias that is not zero, as in any trained model: it is what leaks.
    torch.nn.init.ones_(mixer.conv1d.bias)
    alone = mixer(norm(embeddings(single)))
    together = mixer(norm(embeddings(padded)), attention_mask=mask)[:1, 2:]
    return not torch.allclose(alone, together, atol=_TOLERANCE)
