"""Running on from reconstructions, against one sequence at a time through the plain twin of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helix_twin import tiny_network, twin_hidden
from sae_toys import CONFIGS

from helix_sae.errors import DataError
from helix_sae.models.helix.heads import Heads
from helix_sae.models.helix.model import HelixModel
from helix_sae.mrna.tokens import TokenizedSequence, tokenize
from helix_sae.sae import (
    SparseAutoencoder,
    downstream_measures,
    estimate_scaling,
    probe_kept,
    random_autoencoder,
    run_spliced,
)
from helix_sae.sae.downstream import centred_cosine, r_squared, recovered

SITES = ("layers.0.mixer", "layers.1")
WIDTH = 16


def tokens(n: int = 6) -> list[TokenizedSequence]:
    rng = np.random.default_rng(1)
    sizes = rng.integers(8, 20, size=n)
    return [tokenize("".join(rng.choice(list("ACGU"), size=size)), 4, None) for size in sizes]


def model(with_head: bool = True) -> HelixModel:
    torch.manual_seed(3)
    heads = Heads(WIDTH, 14, ("functional_mrl",)).requires_grad_(False) if with_head else None
    return HelixModel(tiny_network("M+*"), fingerprint="tiny", heads=heads)


def saes() -> dict[str, SparseAutoencoder]:
    x = torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(0))
    scaling = estimate_scaling(x, "toy")
    names = ("topk", "relu")
    return {
        site: random_autoencoder(CONFIGS[name].resolve(WIDTH), scaling, seed=0)
        for site, name in zip(SITES, names, strict=True)
    }


def test_outcomes_equal_one_sequence_at_a_time() -> None:
    helix, dictionaries = model(), saes()
    means = {site: torch.full((WIDTH,), 0.1) for site in SITES}
    outcomes = run_spliced(helix, tokens(), dictionaries, means)
    edits = {("", "clean"): {}}
    for site, sae in dictionaries.items():
        edits[site, "reconstructed"] = {site: lambda x, sae=sae: sae(x.float()).detach().to(x)}
        edits[site, "mean"] = {site: lambda x: torch.full_like(x, 0.1)}
        edits[site, "zero"] = {site: torch.zeros_like}
    assert set(outcomes) == set(edits)
    for key, edit in edits.items():
        for i, t in enumerate(tokens()):
            ids = torch.from_numpy(t.ids)[None]
            hidden = twin_hidden(helix.module, ids, edit)[0]
            log_p = torch.log_softmax(hidden @ helix.heads.next_token.weight.double().T, dim=-1)
            nats = -sum(float(log_p[j - 1, t.ids[j]]) for j in range(1, len(t.ids)))
            assert outcomes[key].nats[i] == pytest.approx(nats, rel=1e-4), key
            assert outcomes[key].n_predicted[i] == len(t.ids) - 1
            pooled = hidden[torch.from_numpy(t.is_nucleotide)].mean(0)
            np.testing.assert_allclose(outcomes[key].embedding[i], pooled, rtol=1e-3, atol=1e-4)


def test_measures_compare_with_both_ablations() -> None:
    outcomes = run_spliced(model(), tokens(), saes(), {site: torch.zeros(WIDTH) for site in SITES})
    table = downstream_measures(outcomes).set_index("site")
    assert list(table.index) == list(SITES)
    for site in SITES:
        row = table.loc[site]
        assert row["n_sequences"] == 6
        assert row["n_tokens"] == sum(len(t.ids) - 1 for t in tokens())
        assert row["ce_clean"] == pytest.approx(outcomes["", "clean"].nats.sum() / row["n_tokens"])
        assert row["ce_mean_ablated"] == pytest.approx(row["ce_zero_ablated"])
        expected = recovered(row["ce_clean"], row["ce_reconstructed"], row["ce_mean_ablated"])
        assert row["ce_recovered"] == pytest.approx(expected, nan_ok=True)
        assert -1 <= row["embedding_cosine"] <= 1


def test_a_perfect_reconstruction_loses_nothing() -> None:
    """As many active features as directions and their opposites: nothing is left out."""
    perfect = random_autoencoder(
        CONFIGS["relu"].resolve(WIDTH).model_copy(update={"expansion_factor": 2.0}),
        estimate_scaling(torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(0)), "toy"),
        seed=0,
    )
    with torch.no_grad():
        both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
        perfect.W_dec.copy_(both)
        perfect.W_enc.copy_(both.T)
        perfect.b_enc.zero_()
    means = {SITES[0]: torch.zeros(WIDTH)}
    outcomes = run_spliced(model(), tokens(), {SITES[0]: perfect}, means)
    row = downstream_measures(outcomes).iloc[0]
    assert row["embedding_cosine"] == pytest.approx(1, abs=1e-5)
    assert row["ce_reconstructed"] == pytest.approx(row["ce_clean"], rel=1e-5)
    direction = outcomes["", "clean"].embedding.std(axis=0)
    y = outcomes["", "clean"].embedding @ direction
    kept = probe_kept(outcomes, "functional_mrl", y, lambda e: e @ direction).iloc[0]
    assert kept["r2_clean"] == pytest.approx(1)
    assert kept["r2_kept"] == pytest.approx(1, abs=1e-4)
    assert kept["r2_mean_ablated"] < 1


def test_without_a_head_there_is_no_cross_entropy() -> None:
    outcomes = run_spliced(model(with_head=False), tokens(), saes(), {s: torch.zeros(WIDTH) for s in SITES})
    table = downstream_measures(outcomes)
    assert table[["ce_clean", "ce_recovered"]].isna().all().all()
    assert table["embedding_cosine"].notna().all()


def test_no_sequence() -> None:
    with pytest.raises(DataError, match="no held-out sequence"):
        run_spliced(model(), [], saes(), {})


def test_shares_and_scores() -> None:
    assert recovered(1.0, 1.1, 2.0) == pytest.approx(0.9)
    assert np.isnan(recovered(1.0, 1.1, 1.0))
    y = np.array([0.0, 1.0, 2.0])
    assert r_squared(y, y) == 1.0
    assert r_squared(y, np.full(3, 1.0)) == 0.0
    assert np.isnan(r_squared(np.ones(3), y))
    a = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert centred_cosine(a + 5, a + 5) == pytest.approx(1)
    assert centred_cosine(a + 5, -a + 5) == pytest.approx(-1)


def test_missing_labels_take_no_part() -> None:
    outcomes = run_spliced(model(), tokens(), saes(), {s: torch.zeros(WIDTH) for s in SITES})
    y = np.arange(6.0)
    y[2] = np.nan
    table = probe_kept(outcomes, "functional_te", y, lambda e: e.sum(axis=1))
    assert (table["n_sequences"] == 5).all()
    assert table["r2_clean"].notna().all()
