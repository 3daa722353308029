"""The page about an architecture of one's own, run as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from helix_sae.errors import ConfigurationError
from helix_sae.sae import AnySaeConfig, parse_sae_config, registry
from helix_sae.sae.interchange import load_sae, save_sae


@pytest.fixture
def python(project_path: Path) -> list[str]:
    page = (project_path / "docs" / "howto" / "your_architecture.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


@pytest.fixture
def said(python: list[str]) -> Iterator[dict[str, Any]]:
    names: dict[str, Any] = {"__name__": "your_architecture"}
    try:
        for block in python:
            exec(compile(block, "your_architecture.md", "exec"), names)
        yield names
    finally:
        registry.ARCHITECTURES.pop("log", None)
        registry.ADDED.pop("log", None)


def test_it_takes_at_most_forty_lines(python: list[str]) -> None:
    assert len([line for line in python[0].splitlines() if line.strip()]) <= 40


def test_it_trains_and_is_read_from_plain_values(said: dict[str, Any]) -> None:
    history = said["result"].history
    first, last = history[history["seed"] == 0]["mse"].iloc[[0, -1]]
    assert last < first
    x = torch.from_numpy(said["x"])
    assert said["sae"].encode(x).shape == (2048, 32)
    config = parse_sae_config({"architecture": "log", "l1_coefficient": 0.01})
    assert type(config) is said["LogConfig"]
    assert parse_sae_config({"architecture": "topk"}).architecture == "topk"
    with pytest.raises(ConfigurationError, match="l1_coefficient"):
        parse_sae_config({"architecture": "log", "l1_coefficient": -1})


def test_it_is_stored_and_stands_in_parameters(said: dict[str, Any], tmp_path: Path) -> None:
    save_sae(said["sae"], tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    x = torch.from_numpy(said["x"])
    assert type(loaded.config) is said["LogConfig"]
    assert torch.equal(loaded.encode(x), said["sae"].encode(x))
    parameter = TypeAdapter(AnySaeConfig).validate_python({"architecture": "log", "l1_coefficient": 0.01})
    assert TypeAdapter(AnySaeConfig).dump_python(parameter)["l1_coefficient"] == 0.01


def test_a_name_is_given_once(said: dict[str, Any]) -> None:
    added = registry.ARCHITECTURES["log"]
    registry.register_architecture(said["LogConfig"], *added)
    with pytest.raises(ConfigurationError, match="already"):
        registry.register_architecture(said["LogConfig"], registry.ARCHITECTURES["topk"].objective, added[1])
