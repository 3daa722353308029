"""Sites: capture, edit, resume; batches and pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helix_twin import random_ids, tiny_model, twin_hidden
from torch import Tensor

from helix_sae.errors import UnknownSiteError
from helix_sae.mrna.tokens import TokenizedSequence, tokenize

SITES = (
    "embeddings", "layers.0.mixer", "layers.0", "layers.1.feed_forward", "layers.1", "layers.2.mixer", "layers.2",
    "layers.3.self_attn", "layers.3.feed_forward", "layers.3", "layers.4.feed_forward", "layers.4",
)  # fmt: skip
"""Of the tiny model M+M*+, in forward order."""


def noise(like: Tensor, seed: int = 5) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def sequences(lengths: list[int], seed: int = 0) -> list[TokenizedSequence]:
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("ACGU"), size=n)) for n in lengths]
    return [tokenize(text, len(text) // 3, None) for text in texts]


def test_sites():
    model = tiny_model()
    assert model.site_names == SITES
    assert model.default_sites == ("layers.0.mixer", "layers.2.mixer")
    assert (model.hidden_size, model.n_layers, model.dtype) == (16, 5, torch.float32)
    assert [model.layer_of(s) for s in ("embeddings", "layers.3.self_attn", "layers.4")] == [-1, 3, 4]


@pytest.mark.parametrize("call", ["check_sites", "capture", "run", "resume", "edited"])
def test_an_unknown_site_is_named_and_the_sites_listed(call: str):
    model, ids = tiny_model(), random_ids(1, 4)
    calls = {
        "check_sites": lambda: model.check_sites(["layers.0.mixer", "layers.9.mixer"]),
        "capture": lambda: model.capture(ids, ["layers.9.mixer"]),
        "run": lambda: model.run(ids, {"layers.9.mixer": lambda x: x}),
        "resume": lambda: model.resume("layers.9.mixer", torch.zeros(1, 4, 16), model.cache(ids)),
        "edited": lambda: model.edited({"layers.9.mixer": lambda x: x}).__enter__(),
    }
    with pytest.raises(
        UnknownSiteError, match=r"'layers\.9\.mixer'.*embeddings, layers\.0\.mixer, .*layers\.4"
    ):
        calls[call]()


def test_capture_equals_hooks():
    model, ids = tiny_model(), random_ids(2, 11)
    seen: dict[str, Tensor] = {}
    handles = [
        model.module.get_submodule(site).register_forward_hook(
            lambda _m, _i, out, site=site: seen.update({site: out[0] if isinstance(out, tuple) else out})
        )
        for site in SITES
    ]
    model.hidden(ids)
    for handle in handles:
        handle.remove()
    captured = model.capture(ids, SITES)
    assert tuple(captured) == SITES
    for site in SITES:
        torch.testing.assert_close(captured[site], seen[site], rtol=1e-6, atol=1e-6)
        assert not captured[site].requires_grad


def test_capture_stops_after_the_last_site():
    model, ids = tiny_model(), random_ids(1, 5)
    ran: list[int] = []
    for k, layer in enumerate(model.module.get_submodule("layers")):
        layer.register_forward_hook(lambda _m, _i, _o, k=k: ran.append(k))
    captured = model.capture(ids, ["layers.2.mixer", "layers.0"])
    assert list(captured) == ["layers.2.mixer", "layers.0"]
    assert ran == [0, 1, 2]
    assert model.capture(ids, []) == {}


@pytest.mark.parametrize("site", SITES)
def test_resume_equals_the_full_pass_with_the_same_change(site: str):
    model, ids = tiny_model(), random_ids(2, 23)
    cache = model.cache(ids)
    value = model.at_site(site, cache)
    change = noise(value)
    expected = model.run(ids, {site: lambda x: x + change})
    torch.testing.assert_close(model.resume(site, value + change, cache), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.resume(site, value, cache), model.hidden(ids), rtol=1e-5, atol=1e-5)
    twin = twin_hidden(model.module, ids, {site: lambda x: x + change.double()})
    torch.testing.assert_close(expected.double(), twin, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("site", SITES[:-1])
def test_resume_with_edits_at_every_later_site(site: str):
    model, ids = tiny_model(), random_ids(2, 13)
    cache = model.cache(ids)
    value = model.at_site(site, cache) + 1.0
    later = {
        s: (lambda x, i=i: x * (1 + 0.1 * i) + 0.2) for i, s in enumerate(SITES) if SITES.index(site) < i
    }
    expected = model.run(ids, {site: lambda x: x + 1.0, **later})
    torch.testing.assert_close(model.resume(site, value, cache, later), expected, rtol=1e-5, atol=1e-5)
    with model.edited(later):
        torch.testing.assert_close(model.resume(site, value, cache), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.hidden(ids), cache_output(model, ids), rtol=1e-5, atol=1e-5)


def test_the_cache_of_an_edited_pass_carries_the_edit():
    model, ids = tiny_model(), random_ids(2, 13)
    first, second = "layers.0.mixer", "layers.3.feed_forward"
    with model.edited({first: lambda x: x + 0.5}):
        cache = model.cache(ids)
    value = model.at_site(second, cache) - 0.3
    expected = model.run(ids, {first: lambda x: x + 0.5, second: lambda x: x - 0.3})
    torch.testing.assert_close(model.resume(second, value, cache), expected, rtol=1e-5, atol=1e-5)


def test_cached_rows():
    model, ids = tiny_model(), random_ids(3, 9)
    index = torch.tensor([2, 0, 2])
    cache = model.cache(ids).rows(index)
    value = model.at_site("layers.2.mixer", cache) + torch.arange(3.0)[:, None, None]
    expected = model.run(ids[index], {"layers.2.mixer": lambda x: x + torch.arange(3.0)[:, None, None]})
    torch.testing.assert_close(model.resume("layers.2.mixer", value, cache), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "site", ["embeddings", "layers.0.mixer", "layers.3.self_attn", "layers.3.feed_forward"]
)
def test_resume_is_differentiable(site: str):
    model, ids = tiny_model(), random_ids(2, 13)
    cache = model.cache(ids)
    value = model.at_site(site, cache).requires_grad_()
    weights = noise(value)
    (found,) = torch.autograd.grad((model.resume(site, value, cache) * weights).sum(), value)
    leaf = torch.zeros_like(value, requires_grad=True)
    (expected,) = torch.autograd.grad((model.run(ids, {site: lambda x: x + leaf}) * weights).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_edits_are_gone_after_an_error():
    model, ids = tiny_model(), random_ids(1, 5)

    def fail(_x: Tensor) -> Tensor:
        raise RuntimeError("from the edit")

    with pytest.raises(RuntimeError, match="from the edit"):
        model.run(ids, {"layers.2": fail})
    torch.testing.assert_close(model.hidden(ids), cache_output(model, ids))


def test_batches_lengths_and_single_sequences_give_the_same_embeddings():
    model = tiny_model()
    mixed = sequences([5, 40, 40, 17, 300, 38, 1, 40])
    expected = np.concatenate([model.embed([t]) for t in mixed])
    np.testing.assert_allclose(model.embed(mixed), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(model.embed(mixed, token_budget=64), expected, atol=1e-5, rtol=1e-5)
    equal = [t for t in mixed if t.ids.size == mixed[1].ids.size]
    assert len(equal) == 3
    np.testing.assert_allclose(model.embed(equal), expected[[1, 2, 7]], atol=1e-5, rtol=1e-5)
    padded, is_nucleotide = model.tensors(mixed)
    together = model.pool(model.hidden(padded), is_nucleotide)
    np.testing.assert_allclose(together.numpy(), expected, atol=1e-5, rtol=1e-5)


def test_embed_pools_over_nucleotides_of_the_plain_network_and_reports_progress():
    model, done = tiny_model(), []
    tokens = sequences([12, 30, 9])
    found = model.embed(tokens, token_budget=32, on_batch=done.append)
    for row, t in zip(found, tokens, strict=True):
        hidden = twin_hidden(model.module, torch.from_numpy(t.ids)[None])[0]
        assert not t.is_nucleotide.all()
        np.testing.assert_allclose(row, hidden[t.is_nucleotide].mean(0), atol=1e-5)
    assert sum(done) == 3


def cache_output(model, ids: Tensor) -> Tensor:
    return model.module.norm_f(model.cache(ids).residual[-1])
