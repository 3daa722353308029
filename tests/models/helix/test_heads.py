"""The read-outs beside a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helix_sae.errors import ModelError
from helix_sae.models.helix.heads import Heads, load_heads, save_heads


def test_round_trip(tmp_path: Path):
    heads = Heads(5, 14, ("functional_mrl", "functional_te"))
    heads.phenotype_mean.copy_(torch.tensor([7.0, -1.0]))
    heads.phenotype_scale.copy_(torch.tensor([2.0, 0.5]))
    save_heads(heads, tmp_path)
    loaded = load_heads(tmp_path)
    assert loaded is not None
    assert loaded.phenotypes == heads.phenotypes
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), heads.state_dict().values(), strict=True)
    )
    assert not any(p.requires_grad for p in loaded.parameters())


def test_predictions_are_in_the_phenotypes_own_units():
    heads = Heads(3, 14, ("functional_mrl",))
    heads.phenotype_mean.fill_(7.0)
    heads.phenotype_scale.fill_(2.0)
    pooled = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(heads.predict(pooled), heads.standardised(pooled) * 2 + 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype):
    heads = Heads(3, 14, ("functional_mrl",))
    hidden = torch.ones(2, 3, dtype=dtype)
    assert heads.logits(hidden).dtype == heads.predict(hidden).dtype == torch.float32


def test_no_heads(tmp_path: Path):
    assert load_heads(tmp_path) is None


@pytest.mark.parametrize(
    "description", ["", "[]", '{"phenotypes": 3}', '{"phenotypes": ["a", "b", "c"]}', "{"]
)
def test_a_description_that_does_not_fit(tmp_path: Path, description: str):
    save_heads(Heads(5, 14, ("functional_mrl",)), tmp_path)
    (tmp_path / "heads.json").write_text(description)
    with pytest.raises(ModelError, match=r"restore heads\.safetensors"):
        load_heads(tmp_path)
