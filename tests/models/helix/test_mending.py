"""helical's defects are found by behaviour, and the mended network is the one that its modules describe."""

from __future__ import annotations

import os
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from helix_twin import LAYERS, random_ids, tiny_network, twin_hidden, twin_mixer
from torch import Tensor

from helix_sae.models.helix import mending
from helix_sae.models.helix.diagnosis import Defects, diagnose
from helix_sae.models.helix.fast import forward
from helix_sae.models.helix.fast.choice import convolution, fits_fused, linear
from helix_sae.models.helix.fast.linear import (
    GATED_ROWS,
    gated_unit,
    has_fused_onednn,
    has_onednn,
    linear_silu,
)
from helix_sae.models.helix.mending import mend
from helix_sae.models.upstream import import_helical


def test_helical_has_the_three_defects():
    assert diagnose(import_helical("helix_mrna.modeling_helix_mrna").HelixmRNAPretrainedModel) == Defects(
        True, True, True
    )


def test_a_class_that_is_right_is_found_right():
    modeling = import_helical("helix_mrna.modeling_helix_mrna")

    class Right(modeling.HelixmRNAPretrainedModel):
        def __init__(self, config):
            super().__init__(config)
            for module in self.modules():
                if isinstance(module, modeling.Mamba2Mixer):
                    module.forward = MethodType(forward.mixer_forward, module)

    Right.forward = forward.chained_forward
    found = diagnose(Right)
    assert found == Defects(False, False, False)
    assert not found.any()
    assert found.describe() == "no defect"


def test_each_defect_is_found_by_itself():
    modeling = import_helical("helix_mrna.modeling_helix_mrna")

    class Chained(modeling.HelixmRNAPretrainedModel):
        """Right but for the mixers' scan."""

    Chained.forward = forward.chained_forward
    assert diagnose(Chained) == Defects(False, True, False)

    class Scanning(modeling.HelixmRNAPretrainedModel):
        """Right in the mixers but for the mask, which a mixer by itself ignores."""

        def __init__(self, config):
            super().__init__(config)
            self.layers[0].mixer.forward = MethodType(forward.mixer_forward, self.layers[0].mixer)

    assert diagnose(Scanning) == Defects(True, False, True)


def test_diagnosing_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    diagnose(import_helical("helix_mrna.modeling_helix_mrna").HelixmRNAPretrainedModel)
    assert torch.equal(torch.rand(1), expected)


def test_mending_is_said_once_and_changes_no_weight(monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.setattr(mending, "_SAID", set())
    # At the logger itself: whatever a run in this process has made of the handlers further up is another matter.
    monkeypatch.setattr(mending.LOGGER, "info", lambda text, *values: lines.append(text % values))
    modeling = import_helical("helix_mrna.modeling_helix_mrna")
    config = tiny_network().config
    networks = [modeling.HelixmRNAPretrainedModel(config).eval() for _ in range(2)]
    lines.clear()
    mending._SAID.clear()
    before = {name: tensor.clone() for name, tensor in networks[0].state_dict().items()}
    found = [mend(network) for network in (networks[0], networks[0], networks[1])]
    assert found == [Defects(True, True, True)] * 3
    assert lines == [f"Helix-mRNA: corrected in helical's forward: {found[0].describe()}."]
    after = networks[0].state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_helical_that_is_right_is_said_to_be(monkeypatch: pytest.MonkeyPatch):
    lines: list[str] = []
    monkeypatch.setattr(mending, "_SAID", set())
    monkeypatch.setattr(mending.LOGGER, "info", lambda text, *values: lines.append(text % values))
    monkeypatch.setattr(mending, "diagnose", lambda _class: Defects(False, False, False))
    mend(import_helical("helix_mrna.modeling_helix_mrna").HelixmRNAPretrainedModel(tiny_network("M").config))
    assert lines == ["Helix-mRNA: helical's forward is right; a faster one takes its place."]


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("layers", [LAYERS, "M+M+M+M*+", "MM", "*M"])
def test_the_mended_network_equals_its_modules_chained_by_hand(layers: str, n_groups: int):
    network, ids = tiny_network(layers, n_groups=n_groups), random_ids(2, 21)
    found = network(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found.double(), twin_hidden(network, ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_groups", [1, 2])
def test_the_mended_network_equals_helical_s_own_modules_chained_by_hand(n_groups: int):
    """Up to the length of its first chunk, 256 tokens, helical's modules are right; only their chain is cut."""
    mended, ids = tiny_network("M+M*+", n_groups=n_groups), random_ids(2, 200)
    stock = import_helical("helix_mrna.modeling_helix_mrna").HelixmRNAPretrainedModel(mended.config).eval()
    stock.load_state_dict(mended.state_dict())
    with torch.no_grad():
        hidden = stock.embeddings(ids)
        for layer in stock.layers:
            hidden = layer(hidden, attention_mask=None, use_cache=False)[0]
        expected = stock.norm_f(hidden)
        assert not torch.allclose(stock(input_ids=ids, use_cache=False)[0], expected, atol=1e-2)
    torch.testing.assert_close(mended(input_ids=ids)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_mixer_past_the_chunk_equals_the_plain_recurrence():
    mixer = tiny_network("M").layers[0].mixer
    x = torch.randn(1, 270, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixer(x).double(), twin_mixer(mixer, x.double()), rtol=1e-5, atol=1e-5)


def test_the_first_nucleotide_changes_the_last_embedding():
    network, ids = tiny_network(), random_ids(1, 30)
    changed = ids.clone()
    changed[0, 0] = 7 + (ids[0, 0] - 6) % 4
    difference = (network(input_ids=ids)[0] - network(input_ids=changed)[0]).abs()
    assert difference[0, -1].max() > 1e-4


@pytest.mark.parametrize("at", [1, 7, 17, 29])
def test_nothing_before_a_change_moves(at: int):
    network, ids = tiny_network(), random_ids(2, 30)
    changed = ids.clone()
    changed[:, at] = 7 + (ids[:, at] - 6) % 4
    before, after = network(input_ids=ids)[0], network(input_ids=changed)[0]
    assert torch.equal(before[:, :at], after[:, :at])
    assert not torch.allclose(before[:, at], after[:, at])


def test_noise_in_the_first_mixer_reaches_the_output():
    network, ids = tiny_network(), random_ids(2, 12)
    clean = network(input_ids=ids)[0]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    handle = network.layers[0].mixer.register_forward_hook(lambda _m, _i, out: out + noise)
    noisy = network(input_ids=ids)[0]
    handle.remove()
    assert (noisy - clean).abs().max() > 0.1


@pytest.mark.parametrize("padded_side", ["left", "right"])
def test_padding_changes_nothing(padded_side: str):
    network, ids = tiny_network(), random_ids(1, 14)
    alone = network(input_ids=ids)[0]
    left, right = (5, 0) if padded_side == "left" else (0, 5)
    padded = torch.nn.functional.pad(ids, (left, right), value=1)
    batch = torch.cat([padded, random_ids(1, 19, seed=1)])
    mask = (torch.arange(19) >= left) & (torch.arange(19) < 14 + left)
    together = network(input_ids=batch, attention_mask=torch.stack([mask.long(), torch.ones(19).long()]))[0]
    torch.testing.assert_close(together[0, left : left + 14], alone[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[1], network(input_ids=batch[1:])[0][0], rtol=1e-5, atol=1e-5)


def test_upstream_outputs_are_all_there():
    network, ids = tiny_network(), random_ids(2, 9)
    output = network(input_ids=ids, output_hidden_states=True, return_dict=True)
    assert len(output.hidden_states) == len(LAYERS) + 1
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    as_tuple = network(input_ids=ids, output_hidden_states=True, return_dict=False)
    assert torch.equal(as_tuple[0], output[0])
    assert len(as_tuple[1]) == len(LAYERS) + 1
    from_embeddings = network(inputs_embeds=network.embeddings(ids))[0]
    assert torch.equal(from_embeddings, output[0])


def test_attentions_are_causal_weights_and_do_not_change_the_result():
    network, ids = tiny_network(), random_ids(2, 9)
    output = network(input_ids=ids, output_attentions=True)
    (weights,) = output.attentions
    assert weights.shape == (2, 4, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))
    assert weights.triu(1).abs().max() == 0
    torch.testing.assert_close(output.last_hidden_state, network(input_ids=ids)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"input_ids": random_ids(1, 3), "inputs_embeds": torch.zeros(1, 3, 16)},
        {"input_ids": random_ids(1, 3), "use_cache": True},
    ],
)
def test_impossible_calls_are_refused(arguments: dict):
    with pytest.raises(ValueError, match=r"Give exactly one|cache"):
        tiny_network("M")(**arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype):
    network, ids = tiny_network("M+M*+"), random_ids(2, 40)
    exact = twin_hidden(network, ids)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {"rtol": 0.2, "atol": 0.2}
    found = network.to(dtype)(input_ids=ids)[0]
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, **tolerance)


def test_the_network_can_be_trained():
    network, ids = tiny_network().train().requires_grad_(True), random_ids(2, 20)
    network(input_ids=ids)[0].square().sum().backward()
    without = [
        name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    assert without == []


def test_hooks_on_inner_modules_see_what_upstream_would_show():
    """In-place arithmetic must not reach what a hook was given."""
    network, ids = tiny_network(), random_ids(2, 20)
    seen: dict[str, torch.Tensor] = {}
    copies: dict[str, torch.Tensor] = {}

    def record(name: str):
        def hook(_module, _inputs, output):
            tensor = output[0] if isinstance(output, tuple) else output
            seen[name], copies[name] = tensor, tensor.clone()

        return hook

    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(record(name))
    with torch.no_grad():
        network(input_ids=ids)
    changed = [name for name, tensor in seen.items() if not torch.equal(tensor, copies[name])]
    assert changed == []
    assert {
        "layers.0.mixer.in_proj",
        "layers.1.feed_forward.gate_proj",
        "layers.1.feed_forward.act_fn",
    } <= set(seen)
    assert seen["layers.1.feed_forward.gate_proj"].shape == (2, 20, 64)


def test_a_gated_unit_in_one_piece_equals_its_parts():
    generator = torch.Generator().manual_seed(0)
    gate, up, down = (torch.randn(*s, generator=generator) for s in ((40, 24), (40, 24), (24, 40)))
    for shape in ((2 * GATED_ROWS + 3, 24), (2, 9, 24), (24,)):
        x = torch.randn(*shape, generator=generator)
        assert fits_fused(x, gate, up, down) == has_fused_onednn()
        if has_fused_onednn():
            found = gated_unit(x, gate, up, down)
            wide = (t.double() for t in (x, gate, up, down))
            expected = plain_gated_unit(*wide)
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert not fits_fused(x.double(), gate.double(), up.double(), down.double())
    assert not fits_fused(x.clone().requires_grad_(), gate, up, down)


def plain_gated_unit(x, gate, up, down):
    return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T


@pytest.mark.parametrize("part", ["gate_proj", "up_proj", "down_proj", "act_fn"])
def test_a_hook_on_one_part_of_a_gated_unit_is_called_and_heard(part: str):
    network, x = tiny_network("+"), torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    unit = network.layers[0].feed_forward
    gate, up, down = (getattr(unit, f"{name}_proj").weight for name in ("gate", "up", "down"))
    activated = torch.nn.functional.silu(x @ (gate.T * (2 if part == "gate_proj" else 1)))
    expected = (activated * (x @ up.T)) @ down.T * (1 if part == "gate_proj" else 2)
    (before,) = unit(x)
    handle = getattr(unit, part).register_forward_hook(lambda _m, _i, out: 2 * out)
    (doubled,) = unit(x)
    handle.remove()
    torch.testing.assert_close(doubled, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unit(x)[0], before, rtol=0, atol=0)


@pytest.mark.parametrize("part", ["in_proj", "act", "norm", "out_proj"])
def test_a_hook_on_one_part_of_a_mixer_is_called_and_heard(part: str):
    network, x = tiny_network("M"), torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    mixer = network.layers[0].mixer
    before = mixer(x)
    seen: list[torch.Tensor] = []
    handle = getattr(mixer, part).register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    torch.testing.assert_close(mixer(x), before, rtol=1e-5, atol=1e-5)
    handle.remove()
    assert len(seen) == 1
    handle = getattr(mixer, part).register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    assert not torch.allclose(mixer(x), before, atol=1e-2)
    handle.remove()
    torch.testing.assert_close(mixer(x), before, rtol=0, atol=0)


def test_a_silu_inside_a_product_equals_one_after_it():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 7, 33, generator=generator), torch.randn(21, 33, generator=generator)
    assert fits_fused(x, weight) == has_fused_onednn()
    if has_fused_onednn():
        found = linear_silu(x, weight)
        expected = torch.nn.functional.silu(torch.nn.functional.linear(x, weight))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not fits_fused(x.double(), weight.double())
    assert not fits_fused(x, weight.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_with_and_without_a_gradient(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    x, weight, grad = (
        torch.randn(*s, generator=generator, dtype=dtype) for s in ((3, 7, 20), (20,), (3, 7, 20))
    )
    norm = SimpleNamespace(weight=weight, variance_epsilon=1e-2)
    expected = weight * x / (x.square().mean(-1, keepdim=True) + 1e-2).sqrt()
    torch.testing.assert_close(forward.norm_forward(norm, x), expected)
    gradients: list[Tensor] = []
    for wanted in (False, True):  # with a fixed weight by hand, otherwise by autograd
        weight.requires_grad_(wanted)
        leaf = x.clone().requires_grad_()
        found = forward.norm_forward(norm, leaf)
        assert ("NormOfFrozenWeight" in type(found.grad_fn).__name__) != wanted
        torch.testing.assert_close(found, expected)
        gradients.append(torch.autograd.grad(found, leaf, grad)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("time", [0, 1, 2, 3, 4, 50])
@pytest.mark.parametrize("has_tail", [True, False])
def test_the_convolution_with_and_without_a_gradient(time: int, has_tail: bool):
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(2, time, 12, generator=generator)
    x, tail = wide[..., 2:9], torch.randn(2, 3, 7, generator=generator) if has_tail else None
    weight, bias = torch.randn(7, 1, 4, generator=generator), torch.randn(7, generator=generator)
    padded = torch.cat([torch.zeros(2, 3, 7) if tail is None else tail, x], dim=1)
    expected = torch.empty(2, time, 7)
    for t in range(time):
        expected[:, t] = (padded[:, t : t + 4] * weight[:, 0].T).sum(1) + bias
    for wanted in (False, True):
        found = convolution(x, weight.requires_grad_(wanted), bias, tail)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert found.requires_grad == wanted
    if time:
        gradients = []
        for wanted in (False, True):  # with fixed weights by a convolution of its own, otherwise by autograd
            leaf = x.clone().requires_grad_()
            found = convolution(leaf, weight.requires_grad_(wanted), bias, tail)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
            gradients.append(torch.autograd.grad((found * expected).sum(), leaf)[0])
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


def test_linear_products_do_not_depend_on_the_way():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*s, generator=generator) for s in ((3, 7, 33), (21, 33), (21,)))
    for b in (None, bias):
        expected = torch.nn.functional.linear(x, weight, b)
        torch.testing.assert_close(linear(x, weight, b), expected, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(
            linear(x.transpose(0, 1), weight, b), expected.transpose(0, 1), rtol=1e-6, atol=1e-5
        )
    assert linear(x[:0], weight).shape == (0, 7, 21)
    assert linear(x.requires_grad_(), weight).requires_grad
    assert linear(x.double(), weight.double()).dtype == torch.float64


def test_mending_holds_onednn_to_few_shapes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    mend(tiny_network())
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    mend(tiny_network())
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


def test_onednn_is_used_where_torch_has_it():
    assert has_onednn() == torch.backends.mkldnn.is_available()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_cpu():
    network, ids = tiny_network(), random_ids(3, 300)
    on_cpu = network(input_ids=ids)[0]
    on_gpu = network.cuda()(input_ids=ids.cuda())[0].cpu()
    np.testing.assert_allclose(on_gpu.numpy(), on_cpu.numpy(), rtol=1e-3, atol=1e-3)
