"""The contract's defaults, on a plain network; and the short ways of Helix-mRNA, held to these defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from helix_twin import random_ids, tiny_model
from plain_models import PLAIN_SITES, PlainModel, PlainNetwork, plain_model
from test_model import SITES, noise

from helix_sae.errors import ConfigurationError, ModelError, UnknownSiteError
from helix_sae.models.contract import Model, StillTokens
from helix_sae.mrna.tokens import tokenize

TIME, START = 13, 5


def test_sites_and_what_is_known_of_a_model():
    model = plain_model()
    assert model.default_sites == PLAIN_SITES[1:]
    assert (model.hidden_size, model.embedding_size, model.dtype) == (6, 6, torch.float32)
    assert [model.layer_of(site) for site in PLAIN_SITES] == [-1, 0, 1, 2]
    with pytest.raises(UnknownSiteError, match=r"'layers\.9'.*embed, layers\.0"):
        model.layer_of("layers.9")
    assert model.as_read_by_head() is model
    assert model.next_token_logits(torch.zeros(1, 6)) is None
    with pytest.raises(ConfigurationError, match="cannot be compiled"):
        model.compile()
    with pytest.raises(ModelError, match="no method save"):
        model.save(Path("x"))
    with pytest.raises(ModelError, match="says nowhere how"):
        PlainModel.load(Path("x"))


def test_tokens_are_given_in_the_model_s_own_numbers():
    model = plain_model()
    ids = torch.from_numpy(tokenize("ACGUN").ids)[None]
    assert model.own_ids(ids).tolist() == [[3, 2, 1, 0, 4]]
    torch.testing.assert_close(model.hidden(ids), model.module(torch.tensor([[3, 2, 1, 0, 4]])))

    class Mute(PlainModel):
        vocabulary: ClassVar[Mapping[str, int]] = {"A": 0, "C": 1, "G": 2, "U": 3}

    class Marked(PlainModel):
        markers = ("cds",)

    for kind, letter in ((Mute, "N"), (Marked, "E")):
        with pytest.raises(ModelError, match=f"no id for {letter}"):
            kind(PlainNetwork(), PLAIN_SITES)


@pytest.mark.parametrize("site", PLAIN_SITES)
def test_running_on_by_default_is_a_whole_pass_with_the_change(site: str):
    model, ids = plain_model(), random_ids(3, TIME)
    cache = model.cache(ids)
    value = model.at_site(site, cache)
    torch.testing.assert_close(value, model.capture(ids, [site])[site])
    change = noise(value)
    change[:, :START] = 0
    expected = model.run(ids, {site: lambda x: x + change})
    torch.testing.assert_close(model.resume(site, value + change, cache), expected)
    rows = torch.tensor([2, 0, 2])
    torch.testing.assert_close(model.resume(site, (value + change)[rows], cache.rows(rows)), expected[rows])
    prefix = model.prefix_states(cache, START)
    torch.testing.assert_close(
        model.resume_suffix(site, (value + change)[:, START:], prefix), expected[:, START:]
    )
    is_nucleotide = torch.rand(3, TIME, generator=torch.Generator().manual_seed(0)) > 0.3
    again = prefix.rows(rows).rows(torch.tensor([1, 0]))
    suffix = model.resume_suffix(site, (value + change)[[0, 2], START:], again)
    pooled = model.pool_suffix(suffix, again, is_nucleotide)
    torch.testing.assert_close(pooled, model.pool(expected[[0, 2]], is_nucleotide[[0, 2]]))


@pytest.mark.parametrize("site", PLAIN_SITES[:-1])
def test_the_cache_of_an_edited_pass_and_edits_behind(site: str):
    model, ids = plain_model(), random_ids(2, TIME)
    later = PLAIN_SITES[PLAIN_SITES.index(site) + 1]
    beyond = (torch.arange(TIME) >= START)[:, None]
    everywhere = {site: lambda x: x + 0.5, later: lambda x: x - 0.3 * beyond}
    with model.edited({site: everywhere[site]}):
        cache = model.cache(ids)
    expected = model.run(ids, everywhere)
    value = model.at_site(site, cache)
    torch.testing.assert_close(model.resume(site, value, cache, {later: everywhere[later]}), expected)
    found = model.resume_suffix(
        site, value[:, START:], model.prefix_states(cache, START), {later: lambda x: x - 0.3}
    )
    torch.testing.assert_close(found, expected[:, START:])
    with pytest.raises(ValueError, match="either `changed` or `hooks`"):
        model.resume_suffix(
            site,
            value[:, START:],
            model.prefix_states(cache, START),
            {later: lambda x: x},
            torch.ones(2, TIME - START),
        )


def test_a_suffix_of_other_tokens_behind_the_same_prefix():
    """As attribution runs both sides of a pair: the cache is of a cut sequence, the first site's values of others."""
    model, ids = plain_model(), random_ids(2, TIME)
    other = torch.cat([ids[:, :START], random_ids(2, TIME + 2, seed=1)], dim=1)
    prefix = model.prefix_states(model.cache(ids[:, : START + 1]), START)
    value = model.capture(other[:, START:], ["embed"])["embed"].requires_grad_()
    found = model.resume_suffix(
        "embed", value, prefix, {}, still=StillTokens(torch.zeros(2, 3, dtype=torch.bool))
    )
    torch.testing.assert_close(found, model.hidden(other)[:, START:])
    (gradient,) = torch.autograd.grad(found.sum(), value)
    assert gradient.abs().min() > 0


def test_embeddings_of_batches_of_single_sequences_and_of_none():
    model = plain_model()
    tokens = [tokenize(text) for text in ("ACGU", "GGGACUUAGC", "A", "UUUUUUUUUUUUUUUUUUUU")]
    alone = np.concatenate([model.embed([t]) for t in tokens])
    np.testing.assert_allclose(model.embed(tokens), alone, rtol=1e-5, atol=1e-6)
    assert model.embed([]).shape == (0, 6)


@pytest.mark.parametrize("site", SITES)
def test_the_short_ways_of_helix_end_where_the_default_ones_do(site: str):
    model, ids = tiny_model(), random_ids(3, TIME)
    short, plain = model.cache(ids), Model.cache(model, ids)
    value = model.at_site(site, short)
    torch.testing.assert_close(value, Model.at_site(model, site, plain), rtol=1e-5, atol=1e-6)
    change = noise(value)
    change[:, :START] = 0
    expected = Model.resume(model, site, value + change, plain)
    torch.testing.assert_close(model.resume(site, value + change, short), expected, rtol=1e-5, atol=1e-5)
    rows = torch.tensor([1, 1, 0])
    prefix, whole = (
        model.prefix_states(short, START).rows(rows),
        Model.prefix_states(model, short, START).rows(rows),
    )
    suffix = (value + change)[rows, START:]
    found = model.resume_suffix(site, suffix, prefix)
    wanted = Model.resume_suffix(model, site, suffix, whole)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    is_nucleotide = torch.rand(3, TIME, generator=torch.Generator().manual_seed(0)) > 0.3
    torch.testing.assert_close(
        model.pool_suffix(found, prefix, is_nucleotide),
        Model.pool_suffix(model, wanted, whole, is_nucleotide),
        rtol=1e-5,
        atol=1e-5,
    )
    captured = model.capture(ids, [site])[site]
    torch.testing.assert_close(captured, Model.capture(model, ids, [site])[site], rtol=1e-5, atol=1e-6)
