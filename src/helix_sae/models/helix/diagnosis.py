"""Finds out by behaviour what the installed helical computes wrongly."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from helix_sae.models.helix import definition
from helix_sae.models.upstream import import_helical, undisturbed_logging

_TOLERANCE = 1e-4


class Defects(NamedTuple):
    """What a class of networks does wrong; every field is a finding, not an assumption."""

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


def diagnose(model_class: type) -> Defects:
    """Try a tiny random network of a class on three known answers (milliseconds).

    Parameters
    ----------
    model_class : type
        helical's ``HelixmRNAPretrainedModel`` or a class like it.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), undisturbed_logging():
        torch.manual_seed(0)
        model = model_class(_tiny_config()).eval()
        # A bias that is not zero, as in any trained model: it is what leaks from padding.
        nn.init.ones_(model.layers[0].mixer.conv1d.bias)
        return Defects(
            layers_not_chained=_layers_not_chained(model),
            scan_wrong_past_chunk=_scan_wrong_past_chunk(model.layers[0].mixer),
            left_padding_leaks=_left_padding_leaks(model),
        )


def _tiny_config() -> Any:
    config_class = import_helical("helix_mrna.helix_mrna_pretrained_config").HelixmRNAPretrainedConfig
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
    """Whether a change of the first mixer's output fails to reach the final embedding."""
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
    return not torch.allclose(mixer(x), definition.mixer(mixer, x), atol=_TOLERANCE)


def _left_padding_leaks(model: Any) -> bool:
    """Whether a left-padded row of a batch differs from the same sequence alone, after the first block."""
    single = torch.tensor([[8, 9, 10]])
    padded = torch.tensor([[1, 1, 8, 9, 10], [7, 7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    alone = _after_first_block(model, single, torch.ones_like(single))
    together = _after_first_block(model, padded, mask)[:1, 2:]
    return not torch.allclose(alone, together, atol=_TOLERANCE)


def _after_first_block(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    output = model(
        input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True, return_dict=True
    )
    return output.hidden_states[0]
