"""The page about a model of one's own, run as it stands: activations, effects and embeddings of a plain module."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from causal_toys import LinearReadOut, RandomSae, pair_table
from safetensors.torch import save_file

from helix_sae.causal.alignment import align_table
from helix_sae.causal.experiment import Experiment
from helix_sae.datasets.model import ModelDataset
from helix_sae.models import extract_activations, handle_for, open_model
from helix_sae.mrna.tokens import tokenize

FOLDER = "data/06_models/my_model"


@pytest.fixture
def page(project_path: Path) -> str:
    return (project_path / "docs" / "howto" / "your_model.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


@pytest.fixture
def my_model(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's module, importable as it says, and its weights where it says."""
    (tmp_path / "my_model.py").write_text(blocks(page, "python")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    module = importlib.import_module("my_model")
    torch.manual_seed(0)
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    save_file(module.GRUs().state_dict(), folder / "model.safetensors")
    return module


def test_it_takes_at_most_forty_lines(page: str):
    assert len([line for line in blocks(page, "python")[0].splitlines() if line.strip()]) <= 40


def test_the_entry_of_the_globals_and_the_python_are_the_same_model(page: str, my_model):
    entry = yaml.safe_load(blocks(page, "yaml")[0])["model"]
    handle = ModelDataset(**entry, device="cpu").load()
    said: dict = {}
    exec(compile(blocks(page, "python")[1], "your_model.md", "exec"), said)
    assert said["embedding"].shape == (2, 32)
    np.testing.assert_allclose(
        said["embedding"], open_model(handle).embed([tokenize("GGGACAUGGCUUAA"), tokenize("ACGU")]), rtol=1e-6
    )
    assert (handle.kind, handle.codon_markers) == ("my_model:MyModel", "none")


def test_activations_are_those_of_the_module(my_model):
    handle = handle_for(FOLDER, kind="my_model:MyModel", device="cpu")
    module, tokens = open_model(handle).module, [tokenize("ACGUN"), tokenize("GG")]
    found = extract_activations(tokens, handle=handle, sites=["embed", "layers.1"])
    x = module.embed(torch.tensor([[0, 1, 2, 3, 4]]))
    np.testing.assert_allclose(found["embed"][:5], x[0].numpy(), rtol=1e-5)
    x = x + module.layers[0](x)[0]
    np.testing.assert_allclose(found["layers.1"][:5], module.layers[1](x)[0][0].numpy(), rtol=1e-4, atol=1e-6)


def test_an_untrained_twin_has_other_weights_of_the_same_size(my_model):
    model = open_model(handle_for(FOLDER, kind="my_model:MyModel", device="cpu"))
    twin = model.untrained(0)
    for name, weight in twin.module.named_parameters():
        trained = model.module.get_parameter(name)
        assert not torch.equal(weight, trained)
        assert 0.5 < float(weight.std() / trained.std()) < 2
    assert torch.equal(twin.module.embed.weight, model.untrained(0).module.embed.weight)


def test_exact_effects_are_whole_passes_with_the_change(my_model):
    """Every node of a site, by the machinery, and one by hand."""
    model = open_model(handle_for(FOLDER, kind="my_model:MyModel", device="cpu"))
    site, rng = "layers.1", np.random.default_rng(0)
    pairs = align_table(pair_table(3, rng, cds=False), "none")
    sae, read_out = RandomSae(32, 12, seed=0), LinearReadOut(torch.linspace(-1, 1, 32))
    exp = Experiment(model, {site: sae}, read_out, pairs)
    effects = exp.effects("exact")
    assert np.abs(effects.values[site]).max() > 1e-4
    for p, pair in enumerate(pairs):
        source, target = (torch.from_numpy(side.ids)[None] for side in (pair.source, pair.target))
        delta = sae.encode(model.capture(target, [site])[site][0]) - sae.encode(
            model.capture(source, [site])[site][0]
        )
        node = int(delta.abs().sum(0).argmax())
        change = delta[:, node : node + 1] * exp.decoders[site][node]
        everything = torch.ones_like(source, dtype=torch.bool)
        with torch.no_grad():
            y = [
                float(read_out(model.pool(model.run(source, edits), everything)))
                for edits in ({}, {site: lambda x, change=change: x + change})
            ]
        assert effects.values[site][p, node] == pytest.approx(y[1] - y[0], rel=1e-3, abs=1e-6)
    gradient = exp.effects("atp")
    assert np.corrcoef(gradient.values[site].ravel(), effects.values[site].ravel())[0, 1] > 0.9
