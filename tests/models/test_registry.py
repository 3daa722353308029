"""Handles: from a name or a folder to a model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from helix_twin import tiny_network
from plain_models import PLAIN_SITES, PlainModel, PlainNetwork, plain_model
from safetensors.torch import load_file, save_file

import helix_sae.models
from helix_sae.errors import ConfigurationError, ModelError
from helix_sae.models import adopt, handle_for, load_model, open_model
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.registry import KINDS, ModelHandle, model_class_of

KIND = f"{__name__}:FolderModel"


class FolderModel(PlainModel):
    @classmethod
    def load(cls, directory: Path) -> FolderModel:
        module = PlainNetwork()
        module.load_state_dict(load_file(directory / "model.safetensors"))
        return cls(module, PLAIN_SITES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[FolderModel.__module__])
    save_file(plain_model().module.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def test_the_kinds_are_models_and_a_folder_is_recognised(tmp_path: Path):
    for name in KINDS:
        assert model_class_of(name).__mro__
    save_network(tiny_network(), tmp_path)
    handle = handle_for(tmp_path)
    assert (handle.kind, handle.codon_markers) == ("helix_mrna", "cds")
    assert handle_for(tmp_path, codon_markers="none").codon_markers == "none"


def test_a_kind_of_one_s_own(folder: Path):
    handle = handle_for(folder, kind=KIND, device="cpu")
    assert ModelHandle.model_validate_json(handle.model_dump_json()) == handle
    assert handle.codon_markers == "none"
    model = open_model(handle)
    assert open_model(handle) is model is load_model(folder, kind=KIND, device="cpu")
    assert model.fingerprint == handle.fingerprint
    assert not any(p.requires_grad for p in model.module.parameters())
    wide = load_model(folder, kind=KIND, device="cpu", dtype="float64")
    assert wide.dtype == torch.float64
    assert wide.fingerprint == handle.fingerprint
    (folder / "settings.json").write_text("{}")
    with pytest.raises(ModelError, match="have changed since the run began"):
        open_model(handle)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("helix", "no kind of model 'helix'; the kinds are helix_mrna, mamba2_mrna, or package.module:Class"),
        ("no_such_package:Model", "cannot be imported"),
        ("helix_sae.models.registry:NoSuch", "cannot be imported"),
        ("helix_sae.models.registry:KINDS", "is no helix_sae.models.Model"),
        ("builtins:dict", "is no helix_sae.models.Model"),
    ],
)
def test_kinds_that_are_none(folder: Path, kind: str, said: str):
    with pytest.raises(ConfigurationError, match=said):
        handle_for(folder, kind=kind)


def test_weights_in_a_format_that_can_run_code_are_no_weights(folder: Path):
    (folder / "model.safetensors").rename(folder / "model.pt")
    with pytest.raises(ModelError, match=r"no safetensors file.*can run code"):
        handle_for(folder, kind=KIND)


def test_a_model_that_is_wrong_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PlainModel, "forward", lambda self, ids: self.module(ids.flip(1)).flip(1))
    save_file(plain_model(seed=3).module.state_dict(), folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"FolderModel .* tokens depend on later ones"):
        load_model(folder, kind=KIND, device="cpu")


def test_adopting():
    model = plain_model()
    assert adopt(model) is model
    for made in (None, object(), torch.nn.Linear(2, 2)):
        with pytest.raises(ModelError, match="is no model of a known kind"):
            adopt(made)


def test_the_face_is_complete_and_lazy():
    assert dir(helix_sae.models) == sorted(helix_sae.models.__all__)
    assert set(helix_sae.models.__all__) == set(helix_sae.models._HOMES)
    for name in helix_sae.models.__all__:
        assert getattr(helix_sae.models, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        helix_sae.models.no_such  # noqa: B018
