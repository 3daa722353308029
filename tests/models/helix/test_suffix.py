"""Running on over a suffix equals running on over everything."""

from __future__ import annotations

import pytest
import torch
from helix_twin import random_ids, tiny_model
from test_model import SITES, noise

from helix_sae.errors import ModelError
from helix_sae.models.contract import StillTokens

TIME = 19


@pytest.mark.parametrize("start", [0, 1, 2, 3, 10, TIME - 1])
@pytest.mark.parametrize("site", SITES)
def test_suffix_equals_the_full_resume(site: str, start: int):
    model, ids = tiny_model(n_groups=2), random_ids(3, TIME)
    cache = model.cache(ids)
    value = model.at_site(site, cache)
    change = noise(value)
    change[:, :start] = 0
    expected = model.resume(site, value + change, cache)
    prefix = model.prefix_states(cache, start)
    found = model.resume_suffix(site, (value + change)[:, start:], prefix)
    torch.testing.assert_close(found, expected[:, start:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prefix.hidden, expected[:, :start], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("site", SITES[:-1])
def test_suffix_with_later_edits(site: str):
    model, ids, start = tiny_model(), random_ids(2, TIME), 7
    cache = model.cache(ids)
    value = model.at_site(site, cache)

    def later(first: int):
        """Edits at every later site, of the tokens from 7 on, for activations whose first token is ``first``."""
        beyond = torch.zeros(TIME)
        beyond[start:] = 1
        weight = beyond[first:, None]
        return {
            s: (lambda x, i=i: x + 0.1 * (i + 1) * weight)
            for i, s in enumerate(SITES)
            if i > SITES.index(site)
        }

    expected = model.resume(site, value, cache, later(0))
    found = model.resume_suffix(site, value[:, start:], model.prefix_states(cache, start), later(start))
    torch.testing.assert_close(found, expected[:, start:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("picked", [[1, 1, 0, 1, 2], [2, 2, 2, 2, 2]])
def test_rows_share_one_prefix(picked: list[int], n_groups: int):
    model, ids, start, site = tiny_model(n_groups=n_groups), random_ids(3, TIME), 8, "layers.0.mixer"
    cache, index = model.cache(ids), torch.tensor(picked)
    is_nucleotide = torch.rand(3, TIME, generator=torch.Generator().manual_seed(2)) > 0.3
    value = model.at_site(site, cache.rows(index))
    change = noise(value)
    change[:, :start] = 0
    full = model.resume(site, value + change, cache.rows(index))
    prefix = model.prefix_states(cache, start).rows(index)
    found = model.resume_suffix(site, (value + change)[:, start:], prefix)
    torch.testing.assert_close(found, full[:, start:], rtol=1e-5, atol=1e-5)
    pooled = model.pool_suffix(found, prefix, is_nucleotide)
    torch.testing.assert_close(pooled, model.pool(full, is_nucleotide[index]), rtol=1e-5, atol=1e-5)
    again = prefix.rows(torch.tensor([4, 2]))
    some = model.resume_suffix(site, (value + change)[[4, 2], start:], again)
    torch.testing.assert_close(some, full[[4, 2], start:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("picked", [[1, 1, 0, 1, 2], [0, 0, 0, 0, 0]])
@pytest.mark.parametrize("site", SITES)
def test_tokens_that_did_not_change_need_not_be_computed(site: str, picked: list[int]):
    model, ids, start = tiny_model(), random_ids(3, TIME), 6
    cache, index = model.cache(ids), torch.tensor(picked)
    value = model.at_site(site, cache.rows(index))
    changed = torch.rand(len(index), TIME, generator=torch.Generator().manual_seed(3)) < 0.3
    changed[:, :start] = False
    changed[3] = False
    patched = value + noise(value) * changed.unsqueeze(-1)
    full = model.resume(site, patched, cache.rows(index))
    prefix = model.prefix_states(cache, start).rows(index)
    found = model.resume_suffix(site, patched[:, start:], prefix, changed=changed[:, start:])
    torch.testing.assert_close(found, full[:, start:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "edited", ["layers.0.mixer", "layers.1", "layers.3.self_attn", "layers.4.feed_forward"]
)
def test_still_tokens_are_computed_once_and_not_differentiated(edited: str):
    """Two passes that part at other tokens in each row, the second of them with fewer tokens, edited on the way."""
    model, ids, start = tiny_model(), random_ids(3, TIME), 4
    first = torch.tensor([start, start + 3, start + 6]).unsqueeze(1)
    other = torch.where(torch.arange(TIME) < first, ids, random_ids(3, TIME, seed=1))
    prefix = model.prefix_states(model.cache(ids), start)
    still = StillTokens(torch.arange(start, TIME) < first)

    def halved(x: Tensor) -> Tensor:
        return 0.5 * x

    def passes(still: StillTokens | None) -> tuple[Tensor, Tensor, Tensor]:
        found: list[Tensor] = []
        value = model.capture(ids[:, start:], ["embeddings"])["embeddings"].requires_grad_()
        found.append(model.resume_suffix("embeddings", value, prefix, {edited: halved}, still=still))
        weights = noise(found[0])
        (gradient,) = torch.autograd.grad((found[0] * weights).sum(), value)
        shorter = model.capture(other[:, start : TIME - 1], ["embeddings"])["embeddings"]
        found.append(model.resume_suffix("embeddings", shorter, prefix, {edited: halved}, still=still))
        return found[0].detach(), found[1].detach(), gradient

    expected, found = passes(None), passes(still)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
    moving = torch.arange(start, TIME) >= first
    torch.testing.assert_close(found[2][moving], expected[2][moving], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[2][~moving], expected[2][~moving], rtol=1e-2, atol=1e-2)


def test_changed_tokens_and_hooks_do_not_go_together():
    model, ids = tiny_model(), random_ids(1, TIME)
    prefix = model.prefix_states(model.cache(ids), 0)
    value, changed = torch.zeros(1, TIME, 16), torch.ones(1, TIME, dtype=torch.bool)
    with pytest.raises(ValueError, match="either `changed` or `hooks`"):
        model.resume_suffix("embeddings", value, prefix, {"layers.1": lambda x: x}, changed)


def test_the_prefix_of_an_edited_pass():
    model, ids, start = tiny_model(), random_ids(2, TIME), 6
    with model.edited({"layers.0.mixer": lambda x: x + 0.5}):
        cache = model.cache(ids)
    site = "layers.2.mixer"
    value = model.at_site(site, cache)
    value[:, start:] += 1
    found = model.resume_suffix(site, value[:, start:], model.prefix_states(cache, start))
    torch.testing.assert_close(found, model.resume(site, value, cache)[:, start:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "site", ["embeddings", "layers.0.mixer", "layers.3.self_attn", "layers.3.feed_forward"]
)
def test_suffix_is_differentiable(site: str):
    model, ids, start = tiny_model(), random_ids(2, TIME), 5
    cache = model.cache(ids)
    value = model.at_site(site, cache).requires_grad_()
    weights = noise(value)[:, start:]
    (expected,) = torch.autograd.grad((model.resume(site, value, cache)[:, start:] * weights).sum(), value)
    suffix = value.detach()[:, start:].requires_grad_()
    prefix = model.prefix_states(cache, start)
    (found,) = torch.autograd.grad((model.resume_suffix(site, suffix, prefix) * weights).sum(), suffix)
    torch.testing.assert_close(found, expected[:, start:], rtol=1e-4, atol=1e-4)


def test_states_are_computed_once_and_only_where_a_pass_needs_them(monkeypatch: pytest.MonkeyPatch):
    model, ids = tiny_model(), random_ids(2, TIME)
    computed: list[int] = []
    original = model.block_state
    monkeypatch.setattr(model, "block_state", lambda k, x: computed.append(k) or original(k, x))
    cache = model.cache(ids)
    prefix = model.prefix_states(cache, 5)
    assert computed == []
    for _ in range(2):
        model.resume_suffix("layers.2", cache.residual[3][:, 5:], prefix.rows(torch.tensor([1, 0])))
        assert len(computed) == model.n_layers - 3  # of those behind it
    model.resume_suffix("embeddings", cache.residual[0][:, 5:], prefix)
    assert len(computed) == model.n_layers


def test_the_scan_goes_on_over_several_chunks():
    model, ids, start = tiny_model("M+"), random_ids(1, 400), 130
    cache = model.cache(ids)
    value = model.at_site("embeddings", cache)[:, start:]
    found = model.resume_suffix("embeddings", value, model.prefix_states(cache, start))
    torch.testing.assert_close(found, model.hidden(ids)[:, start:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", [-1, TIME, TIME + 1])
def test_an_empty_suffix_is_refused(start: int):
    model, ids = tiny_model(), random_ids(1, TIME)
    with pytest.raises(ModelError, match=f"from 0 to {TIME - 1}"):
        model.prefix_states(model.cache(ids), start)
