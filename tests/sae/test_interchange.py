"""SAELens directories: out, back, foreign ones, and damaged ones."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sae_toys import CONFIGS, D_IN, superposition
from safetensors.torch import load_file, save_file

from helix_sae.errors import HelixSaeError, ModelError, StoreError
from helix_sae.sae import (
    SparseAutoencoder,
    estimate_scaling,
    load_metadata,
    load_sae,
    random_autoencoder,
    save_sae,
)
from helix_sae.sae.stability import unknown_stability

NAMES = sorted(CONFIGS)
LENS_NAMES = {
    "relu": "standard",
    "relu_tied": "standard",
    "topk": "topk",
    "batchtopk": "jumprelu",
    "matryoshka": "jumprelu",
    "jumprelu": "jumprelu",
    "gated": "gated",
}


def toy_sae(name: str) -> SparseAutoencoder:
    sae = random_autoencoder(CONFIGS[name].resolve(D_IN), estimate_scaling(superposition(500), "toy"), seed=0)
    with torch.no_grad():
        for bias in sae.bias_names:
            noise = 0.1 * torch.randn(sae.d_sae, generator=torch.Generator().manual_seed(1))
            getattr(sae, bias).add_(noise.abs() if bias == "threshold" else noise)
    return sae


def saelens_forward(directory: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and reconstruction by the formulas of SAELens 6, from the two files alone."""
    config = json.loads((directory / "cfg.json").read_text())
    w = load_file(directory / "sae_weights.safetensors")
    a = (x - w["b_dec"]) @ w["W_enc"]
    match config["architecture"]:
        case "standard":
            codes = torch.relu(a + w["b_enc"])
        case "topk":
            values, features = (a + w["b_enc"]).topk(config["k"], dim=-1)
            codes = torch.zeros_like(a).scatter(-1, features, values.relu())
        case "jumprelu":
            codes = torch.relu(a + w["b_enc"]) * (a + w["b_enc"] > w["threshold"])
        case "gated":
            magnitude = torch.relu((x - w["b_dec"]) @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])
            codes = (a + w["b_gate"] > 0) * magnitude
        case other:
            raise AssertionError(other)
    return codes, codes @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize("name", NAMES)
def test_written_directories_mean_the_same_to_saelens(name: str, tmp_path: Path) -> None:
    sae, x = toy_sae(name), superposition(100, seed=3)
    save_sae(sae, tmp_path, {"site": "layers.0"})
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == LENS_NAMES[name]
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert {"d_in", "d_sae", "dtype"} <= set(config)
    codes, reconstruction = saelens_forward(tmp_path, x)
    torch.testing.assert_close(sae.encode(x), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(x), reconstruction, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    sae = toy_sae(name)
    save_sae(sae, tmp_path / "new" / "folder", {"site": "layers.0", "nested": {"a": [1, 2.5, None]}})
    back = load_sae(tmp_path / "new" / "folder")
    assert back.config == sae.config
    assert type(back) is type(sae)
    for (name_a, a), (name_b, b) in zip(sae.named_parameters(), back.named_parameters(), strict=True):
        assert name_a == name_b
        assert torch.equal(a, b)
    assert load_metadata(tmp_path / "new" / "folder") == {"site": "layers.0", "nested": {"a": [1, 2.5, None]}}


@pytest.mark.parametrize("name", NAMES)
def test_directories_without_our_metadata_give_the_same_codes(name: str, tmp_path: Path) -> None:
    sae, x = toy_sae(name), superposition(100, seed=3)
    save_sae(sae, tmp_path)
    (tmp_path / "helix_sae.json").unlink()
    back = load_sae(tmp_path)
    torch.testing.assert_close(back.encode(x), sae.encode(x))
    torch.testing.assert_close(back(x), sae(x))
    assert load_metadata(tmp_path) == {}


def with_table(sae: SparseAutoencoder) -> SparseAutoencoder:
    rng = np.random.default_rng(0)
    table = unknown_stability(rng.random(sae.d_sae) < 0.9)
    certified = np.where(rng.random(sae.d_sae) < 0.5, "yes", "no")
    sae.stability = table.assign(n_others=4, stability=rng.random(sae.d_sae) / 3, certified=certified)
    return sae


def test_stability_is_kept_to_the_bit_and_gone_when_it_is_not_known(tmp_path: Path) -> None:
    sae = with_table(toy_sae("topk"))
    save_sae(sae, tmp_path)
    back = load_sae(tmp_path).stability
    assert sae.stability is not None
    pd.testing.assert_frame_equal(back, sae.stability, check_exact=True)
    sae.stability = None
    save_sae(sae, tmp_path)
    assert load_sae(tmp_path).stability is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as a table"),
        ("feature,alive\n0,True\n", "lacks n_others, stability"),
        (None, "48 rows|47 rows"),
        ("maybe", "has certified = maybe"),
    ],
)
def test_a_table_of_another_sae_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    sae = with_table(toy_sae("topk"))
    assert sae.stability is not None
    if content is None:
        sae.stability = sae.stability.iloc[:-1]
    elif content == "maybe":
        sae.stability = sae.stability.assign(certified=content)
    save_sae(sae, tmp_path)
    if content in ("", "feature,alive\n0,True\n"):
        (tmp_path / "feature_stability.csv").write_text(content)
    with pytest.raises(StoreError, match=message):
        load_sae(tmp_path)


def edit(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "cfg.json").read_text())
    (directory / "cfg.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("name", ["relu", "topk", "jumprelu", "gated"])
def test_b_dec_not_applied_to_the_input(name: str, tmp_path: Path) -> None:
    sae, x = toy_sae(name), superposition(100, seed=3)
    save_sae(sae, tmp_path)
    (tmp_path / "helix_sae.json").unlink()
    edit(tmp_path, apply_b_dec_to_input=False)
    expected, _ = saelens_forward_without_b_dec(tmp_path, x)
    torch.testing.assert_close(load_sae(tmp_path).encode(x), expected, rtol=1e-4, atol=1e-4)


def saelens_forward_without_b_dec(directory: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = load_file(directory / "sae_weights.safetensors")
    return saelens_forward(directory, x + weights["b_dec"])


def test_topk_rescaled_by_decoder_norm(tmp_path: Path) -> None:
    sae, x = toy_sae("topk"), superposition(100, seed=3)
    save_sae(sae, tmp_path)
    (tmp_path / "helix_sae.json").unlink()
    weights = load_file(tmp_path / "sae_weights.safetensors")
    norm = 0.5 + torch.rand(sae.d_sae, generator=torch.Generator().manual_seed(0))
    weights["W_dec"] = (weights["W_dec"] * norm[:, None]).contiguous()
    save_file(weights, tmp_path / "sae_weights.safetensors")
    edit(tmp_path, rescale_acts_by_decoder_norm=True)
    norm = weights["W_dec"].norm(dim=1)
    pre = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]) * norm
    values, features = pre.topk(4, dim=1)
    codes = torch.zeros_like(pre).scatter(1, features, values.relu())
    back = load_sae(tmp_path)
    torch.testing.assert_close(back.encode(x), codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        back(x), (codes / norm) @ weights["W_dec"] + weights["b_dec"], rtol=1e-4, atol=1e-5
    )


# Directories that are not what they should be --------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["ours", "foreign"])
@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "temporal"},
        {"architecture": None},
        {"architecture": "gated"},
        {"d_in": 13},
        {"d_sae": -1},
        {"d_sae": "48"},
        {"d_in": 48, "d_sae": 12},
        {"k": None},
        {"k": 1000},
        {"k": True},
        {"normalize_activations": "layer_norm"},
        {"reshape_activations": "hook_z"},
        {"d_sae": 10**9},
    ],
    ids=str,
)
def test_settings_that_cannot_be_honoured(changes: dict[str, Any], own: bool, tmp_path: Path) -> None:
    save_sae(toy_sae("topk"), tmp_path)
    if not own:
        (tmp_path / "helix_sae.json").unlink()
    edit(tmp_path, **changes)
    with pytest.raises(StoreError):
        load_sae(tmp_path)


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors", "helix_sae.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"[" * 100_000, b'{"config": 3}', b"{}"]
)
def test_damaged_files(file: str, content: bytes, tmp_path: Path) -> None:
    save_sae(toy_sae("relu"), tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(StoreError):
        load_sae(tmp_path)


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
def test_missing_files(file: str, tmp_path: Path) -> None:
    save_sae(toy_sae("relu"), tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(StoreError, match=file):
        load_sae(tmp_path)
    with pytest.raises(StoreError):
        load_sae(tmp_path / "nowhere")


@given(st.binary(max_size=200))
def test_random_bytes_as_weights(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_sae(toy_sae("relu"), folder)
        (Path(folder) / "sae_weights.safetensors").write_bytes(content)
        with pytest.raises(HelixSaeError):
            load_sae(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["architecture", "d_in", "d_sae", "k", "apply_b_dec_to_input", "normalize_activations", "config"]
)


@given(
    st.dictionaries(KEYS, JSON | st.sampled_from(["topk", "standard", "jumprelu"]), max_size=6), st.booleans()
)
def test_random_settings(values: dict[str, Any], ours: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_sae(toy_sae("relu"), folder)
        target = Path(folder) / ("helix_sae.json" if ours else "cfg.json")
        if not ours:
            (Path(folder) / "helix_sae.json").unlink()
        target.write_text(json.dumps(values))
        with contextlib.suppress(HelixSaeError):
            load_sae(folder)


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    save_sae(toy_sae("relu"), tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    good = load_file(path)
    for name, value in (
        ("b_enc", torch.zeros(3)),
        ("b_enc", torch.full((48,), float("nan"))),
        ("b_enc", torch.zeros(48, dtype=torch.int32)),
        ("extra", torch.zeros(48)),
    ):
        save_file({**good, name: value}, path)
        with pytest.raises(StoreError):
            load_sae(tmp_path)
    save_file({name: value for name, value in good.items() if name != "W_dec"}, path)
    with pytest.raises(StoreError, match="W_dec"):
        load_sae(tmp_path)


def test_weights_of_other_precisions(tmp_path: Path) -> None:
    sae = toy_sae("relu")
    save_sae(sae, tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    save_file({name: value.to(torch.bfloat16) for name, value in load_file(path).items()}, path)
    torch.testing.assert_close(load_sae(tmp_path).W_enc, sae.W_enc, rtol=1e-2, atol=1e-2)


def test_constructor_names_what_is_wrong() -> None:
    sae = toy_sae("relu")
    tensors = dict(sae.named_parameters())
    with pytest.raises(ModelError, match="b_enc"):
        type(sae)(sae.config, {name: value for name, value in tensors.items() if name != "b_enc"})
