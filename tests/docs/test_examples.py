"""The scripts of the site run as they stand, and say what the pages promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helix_sae import load_helix
from helix_sae.mrna.tokens import tokenize
from helix_sae.sae import InputScaling, TopKConfig, random_autoencoder, save_sae


@pytest.fixture
def run(project_path: Path, tmp_path: Path):
    """Run a script of ``docs/examples`` in an empty folder; returns what it printed."""

    def in_empty_folder(name: str) -> str:
        script = project_path / "docs" / "examples" / name
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return in_empty_folder


def test_training_on_arrays_explains_them_and_leaves_an_autoencoder(run, tmp_path: Path) -> None:
    printed = run("train_on_arrays.py")
    explained = float(printed.split("explained variance ")[1].split(",")[0])
    assert 0.9 < explained <= 1
    assert {path.name for path in (tmp_path / "my_saes" / "topk").iterdir()} >= {
        "cfg.json",
        "sae_weights.safetensors",
    }


def test_associating_codes_finds_the_feature_that_was_planted(run) -> None:
    printed = run("associate_codes.py")
    rows = printed.strip().splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["7"]
    assert rows[0].endswith("True")


def test_effects_on_pairs_take_few_imports(project_path: Path) -> None:
    """Once it took eleven from ten modules."""
    lines = (
        (project_path / "docs" / "examples" / "effects_on_pairs.py").read_text(encoding="utf-8").splitlines()
    )
    assert len([line for line in lines if line.startswith(("import helix_sae", "from helix_sae"))]) <= 3


def test_effects_on_pairs_are_what_running_the_model_on_gives(
    run, project_path: Path, tmp_path: Path
) -> None:
    site, source, target = "layers.4.mixer", "GCAUGCCACCGGCUCUAGCA" * 2, "GCACGCCACCGGCUCUAGCA" * 2
    scaling = InputScaling(torch.zeros(96), 1.0)
    sae = random_autoencoder(TopKConfig(k=8, d_in=96, expansion_factor=2), scaling, seed=0)
    save_sae(sae, tmp_path / "my_saes" / site)
    (tmp_path / "data").symlink_to(project_path / "data")
    none = {
        "source_cds_start": [None],
        "source_cds_end": [None],
        "target_cds_start": [None],
        "target_cds_end": [None],
    }
    pd.DataFrame({"source_sequence": [source], "target_sequence": [target], **none}).to_csv(
        tmp_path / "my_pairs.csv"
    )
    header, row = run("effects_on_pairs.py").strip().splitlines()
    effects = dict(zip(map(int, header.split()), map(float, row.split()[1:]), strict=True))
    feature, printed = next((f, effect) for f, effect in effects.items() if f < sae.d_sae)

    model = load_helix(project_path / "data/06_models/helix_mini")
    tokens = {side: tokenize(s, None, None) for side, s in (("source", source), ("target", target))}
    ids = {side: torch.as_tensor(t.ids)[None] for side, t in tokens.items()}
    is_nucleotide = torch.as_tensor(tokens["source"].is_nucleotide)[None]
    with torch.no_grad():
        codes = {side: sae.encode(model.capture(i, [site])[site]) for side, i in ids.items()}
        change = (
            (codes["target"] - codes["source"])[..., [feature]]
            * sae.W_dec[feature]
            * is_nucleotide[..., None]
        )

        def prediction(hidden: torch.Tensor) -> float:
            return float(
                model.pool(hidden, is_nucleotide)[0].double() @ model.head.weight[0] + model.head.bias[0]
            )

        before = prediction(model.run(ids["source"], {}))
        after = prediction(model.run(ids["source"], {site: lambda x: x + change}))
    assert abs(printed) > 1e-3  # far above the rounding that is allowed below
    np.testing.assert_allclose(printed, after - before, atol=2e-5)
