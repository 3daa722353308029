"""Autoencoders to SAELens and back, by real SAELens, in an environment of its own (``make test-interop``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch
from sae_lens import SAE
from sae_toys import CONFIGS, D_IN, superposition

from helix_sae.datasets.saes import SaeCheckpointsDataset
from helix_sae.sae import ArrayBatches, SparseAutoencoder, load_sae, save_sae, train_saes

D_SAE = 4 * D_IN
NAMES = sorted(CONFIGS)


def raw(n: int = 400, seed: int = 5) -> torch.Tensor:
    """Activations as a model gives them: far from 0 and not of unit size."""
    return 7 * superposition(n, seed)


@pytest.fixture(scope="module")
def trained() -> dict[str, SparseAutoencoder]:
    """One SAE of every architecture, trained a little, for raw activations."""
    batches = ArrayBatches({"layers.0.mixer": raw(2000, seed=0)}, 128, seed=0, epochs=4)
    return {key.config: sae for key, sae in train_saes(batches, CONFIGS).saes.items()}


def same(left: torch.Tensor, right: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    torch.testing.assert_close(left.detach(), right.detach(), rtol=1e-5, atol=1e-5 * float(right.abs().max()))


def test_it_is_the_real_one() -> None:
    assert sae_lens.__version__.startswith("6.54.")


@pytest.mark.parametrize("name", NAMES)
def test_saelens_reads_what_we_write(
    name: str, trained: dict[str, SparseAutoencoder], tmp_path: Path
) -> None:
    ours = trained[name]
    save_sae(ours, tmp_path, {"site": "layers.0.mixer"})
    theirs = SAE.load_from_disk(tmp_path)
    x = raw()
    codes = theirs.encode(x)
    assert float((codes > 0).float().mean()) > 0.01
    same(codes, ours.encode(x))
    same(theirs(x), ours(x))


def test_saelens_reads_what_a_run_keeps(trained: dict[str, SparseAutoencoder], tmp_path: Path) -> None:
    """The dataset of the catalog, one site an architecture."""
    sites = {f"layers.{i}.mixer": sae for i, sae in enumerate(trained.values())}
    SaeCheckpointsDataset(filepath=str(tmp_path / "sae_checkpoints")).save(sites)
    for site, ours in sites.items():
        (config,) = (tmp_path / "sae_checkpoints").rglob(f"{site}/cfg.json")
        theirs = SAE.load_from_disk(config.parent)
        same(theirs.encode(raw()), ours.encode(raw()))
        same(theirs(raw()), ours(raw()))


INFERENCE: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("StandardSAE", {}),
    "standard, b_dec not applied to the input": ("StandardSAE", {"apply_b_dec_to_input": False}),
    "topk": ("TopKSAE", {"k": 5}),
    "topk, rescaled": ("TopKSAE", {"k": 5, "rescale_acts_by_decoder_norm": True}),
    "topk, b_dec not applied to the input": ("TopKSAE", {"k": 5, "apply_b_dec_to_input": False}),
    "topk, rescaled, b_dec not applied to the input": (
        "TopKSAE",
        {"k": 5, "rescale_acts_by_decoder_norm": True, "apply_b_dec_to_input": False},
    ),
    "jumprelu": ("JumpReLUSAE", {}),
    "jumprelu, b_dec not applied to the input": ("JumpReLUSAE", {"apply_b_dec_to_input": False}),
    "gated": ("GatedSAE", {}),
    "gated, b_dec not applied to the input": ("GatedSAE", {"apply_b_dec_to_input": False}),
}

TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": ("StandardTrainingSAE", {}),
    "topk": ("TopKTrainingSAE", {"k": 5}),
    "topk, not rescaled": ("TopKTrainingSAE", {"k": 5, "rescale_acts_by_decoder_norm": False}),
    "batchtopk": ("BatchTopKTrainingSAE", {"k": 5}),
    "matryoshka": ("MatryoshkaBatchTopKTrainingSAE", {"k": 5, "matryoshka_widths": [12, 24, D_SAE]}),
    "jumprelu": ("JumpReLUTrainingSAE", {}),
    "gated": ("GatedTrainingSAE", {}),
}


def made_by_saelens(name: str, settings: dict[str, Any]) -> Any:
    """An SAE of theirs with weights away from their start."""
    config = getattr(sae_lens, f"{name}Config")(d_in=D_IN, d_sae=D_SAE, **settings)
    sae = getattr(sae_lens, name)(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter, value in sae.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if parameter == "b_dec":
                value.copy_(raw(1000).mean(0))
            elif parameter in ("threshold", "log_threshold"):
                value.copy_(noise.abs())
            else:
                value.add_(0.3 * noise)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(2.0)
    return sae


@pytest.mark.parametrize("case", INFERENCE)
def test_we_read_what_saelens_writes(case: str, tmp_path: Path) -> None:
    made_by_saelens(*INFERENCE[case]).save_model(tmp_path)
    compare(tmp_path)


@pytest.mark.parametrize("case", TRAINING)
def test_we_read_what_saelens_training_leaves(case: str, tmp_path: Path) -> None:
    made_by_saelens(*TRAINING[case]).save_inference_model(tmp_path)
    compare(tmp_path)


def compare(directory: Path) -> None:
    theirs, ours, x = SAE.load_from_disk(directory), load_sae(directory), raw()
    codes = theirs.encode(x)
    codes = codes.to_dense() if codes.is_sparse else codes
    assert float((codes > 0).float().mean()) > 0.01
    same(ours.encode(x), codes)
    same(ours(x), theirs(x))


@pytest.mark.parametrize("case", ["standard", "topk, rescaled", "jumprelu", "gated"])
def test_there_and_back_again(case: str, tmp_path: Path) -> None:
    """Theirs, read and written by us, read by them."""
    theirs, x = made_by_saelens(*INFERENCE[case]), raw()
    theirs.save_model(tmp_path / "theirs")
    save_sae(load_sae(tmp_path / "theirs"), tmp_path / "ours")
    again = SAE.load_from_disk(tmp_path / "ours")
    same(again(x), SAE.load_from_disk(tmp_path / "theirs")(x))
