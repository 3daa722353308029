"""Checkpoints: written, read through helical, recognised, and refused when something is wrong with them."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helix_twin import random_ids, tiny_network
from safetensors.torch import load_file, save_file

from helix_sae.errors import ModelError
from helix_sae.models.helix.architecture import Architecture, released_architecture, save_network
from helix_sae.models.helix.heads import Heads, load_heads, save_heads
from helix_sae.models.helix.loading import from_helical, load_helix
from helix_sae.models.registry import ModelHandle, handle_for, open_model, resolve_device
from helix_sae.models.upstream import import_helical, undisturbed_logging
from helix_sae.mrna.tokens import tokenize


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    save_network(tiny_network(), directory)
    save_heads(make_heads(), directory)
    return directory


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def fingerprint_of(directory: Path) -> str:
    return handle_for(directory, kind="helix_mrna").fingerprint


def make_heads() -> Heads:
    heads = Heads(16, 14, ("functional_mrl", "functional_te"))
    with torch.no_grad():
        for i, tensor in enumerate((*heads.parameters(), *heads.buffers())):
            tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i)))
    return heads


def upstream_model(directory: Path, batch_size: int = 10):
    """helical's own object, as a user makes it."""
    helix = import_helical("helix_mrna")
    configuration = helix.HelixmRNAConfig(device="cpu", batch_size=batch_size)
    configuration.config["model_name"] = str(directory)
    with undisturbed_logging():
        return helix.HelixmRNA(configurer=configuration)


def assert_same_output(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To the last bit two copies of the same weights agree by chance only.

    The order in which a product is summed depends on where in memory its weights begin, and on whether it is to be
    differentiated.
    """
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_round_trip(written: Path):
    network, ids = tiny_network(), random_ids(2, 30)
    model = load_helix(written, device="cpu")
    assert_same_output(model.hidden(ids), network(input_ids=ids)[0])
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.module.state_dict()[name], tensor), name
    assert not any(p.requires_grad for p in model.module.parameters())
    assert not model.module.training
    assert list(model.module.state_dict()) == list(network.state_dict())
    assert model.heads is not None
    expected = make_heads()
    assert model.heads.phenotypes == expected.phenotypes
    pooled = torch.randn(3, 16, generator=torch.Generator().manual_seed(9))
    assert_same_output(model.heads.predict(pooled), expected.predict(pooled))
    assert_same_output(model.heads.logits(pooled), expected.logits(pooled))


def test_the_fingerprint_is_that_of_the_content(written: Path, checkpoint: Path):
    assert (
        fingerprint_of(written) == fingerprint_of(checkpoint) == load_helix(written, device="cpu").fingerprint
    )
    (checkpoint / "README.md").write_text("about it")
    assert fingerprint_of(checkpoint) == fingerprint_of(written)
    save_network(tiny_network(seed=1), checkpoint)
    assert fingerprint_of(checkpoint) != fingerprint_of(written)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "heads.safetensors", "heads.json"])
def test_the_fingerprint_covers_every_file_that_counts(checkpoint: Path, name: str):
    before = fingerprint_of(checkpoint)
    content = bytearray((checkpoint / name).read_bytes())
    content[-2] ^= 1
    (checkpoint / name).write_bytes(bytes(content))
    assert fingerprint_of(checkpoint) != before


def test_a_model_is_opened_once(written: Path):
    handle = handle_for(written, device="cpu")
    assert open_model(handle) is open_model(handle_for(written, device="cpu", codon_markers="none"))
    assert ModelHandle.model_validate_json(handle.model_dump_json()) == handle
    assert str(handle) == f"{written} ({handle.fingerprint[:12]})"
    assert open_model(handle_for(written, device="cpu", dtype="float64")).dtype == torch.float64


def test_a_compiled_model_computes_the_same(written: Path, monkeypatch: pytest.MonkeyPatch):
    # Traced and split into graphs as ever; the C++ that they become takes minutes (benchmarks/extraction.py compiles it).
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = (open_model(handle_for(written, device="cpu", compiled=c)) for c in (False, True))
    assert plain is not compiled
    with torch.no_grad():
        ids, site = random_ids(2, 70), "layers.0.mixer"
        torch.testing.assert_close(compiled.hidden(ids), plain.hidden(ids), rtol=1e-5, atol=1e-5)
        found, expected = (model.capture(ids, [site])[site] for model in (compiled, plain))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_float64_is_float64_throughout(written: Path):
    from helix_twin import twin_hidden

    ids = random_ids(1, 40)
    found = load_helix(written, device="cpu", dtype="float64").hidden(ids)
    torch.testing.assert_close(found, twin_hidden(tiny_network(), ids), rtol=1e-10, atol=1e-10)


def test_weights_that_changed_under_a_handle_are_not_opened(checkpoint: Path):
    handle = handle_for(checkpoint, device="cpu")
    save_network(tiny_network(seed=2), checkpoint)
    with pytest.raises(ModelError, match=r"have changed since the run began.*start the run again"):
        open_model(handle)


def test_weights_that_changed_after_they_were_opened_are_not_opened_again(checkpoint: Path):
    handle = handle_for(checkpoint, device="cpu")
    first = open_model(handle)
    (checkpoint / "model.safetensors").touch()  # looked at again, and found to be the same
    assert open_model(handle) is first
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (checkpoint / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(ModelError, match="have changed since the run began"):
        open_model(handle)


def test_a_user_s_own_helical_object_is_mended_in_place(written: Path):
    helix_mrna, ids = upstream_model(written), random_ids(2, 12)
    model = from_helical(helix_mrna)
    assert model.module is helix_mrna.model
    loaded = load_helix(written, device="cpu")
    with torch.no_grad():
        assert_same_output(model.hidden(ids), loaded.hidden(ids))
    # The caller's weights can still be trained.
    assert all(p.requires_grad for p in model.module.parameters())
    assert_same_output(model.hidden(ids), loaded.hidden(ids))
    assert from_helical(helix_mrna).fingerprint == model.fingerprint
    assert from_helical(upstream_model(written)).fingerprint == model.fingerprint
    with torch.no_grad():
        helix_mrna.model.norm_f.weight += 1
    assert from_helical(helix_mrna).fingerprint != model.fingerprint


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_embeddings_through_helical_equal_ours(written: Path, batch_size: int):
    """helical's tokenizer pads on the left and appends [SEP]; neither may change a nucleotide's embedding."""
    helix_mrna = upstream_model(written, batch_size)
    model = from_helical(helix_mrna)
    texts = ["ACGUEACGEUUU", "AC", "GGGEACUGGCAUGCUAGCUAACG", "UUUUUUUUUUUU"]
    found = helix_mrna.get_embeddings(helix_mrna.process_data(texts))
    ids = dict(zip("ACGUNE", range(7, 13), strict=True))
    for text, row in zip(texts, found, strict=True):
        alone = model.hidden(torch.tensor([[ids[letter] for letter in text]]))[0]
        last = row.shape[0] - 1
        np.testing.assert_allclose(row[last - len(text) : last], alone.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_helical_reads_what_we_write_and_tokenizes_as_we_do(written: Path):
    helix_mrna = upstream_model(written)
    sequence = "GGACAUGGCUUAAACN"
    ours = tokenize(sequence, 4, 13)
    text = "GGACEAUGEGCUEUAAACN"
    dataset = helix_mrna.process_data([text])
    assert dataset[0]["input_ids"] == [*ours.ids.tolist(), 1]


@pytest.mark.parametrize("wrong", [None, object(), torch.nn.Linear(2, 2)])
def test_other_objects_are_refused(wrong: object):
    with pytest.raises(ModelError, match="is not a helical HelixmRNA"):
        from_helical(wrong)


@pytest.mark.parametrize("source", ["no/such/place", "./nowhere", "/not/here"])
def test_a_directory_that_is_not_there(source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="no checkpoint directory"):
        handle_for(source)


def test_a_hub_id_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"neither a directory here nor .* path of a downloaded checkpoint"):
        handle_for("nobody/nothing")


def test_pickled_weights_are_refused(checkpoint: Path):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no model\.safetensors.*can run code"):
        handle_for(checkpoint)
    # Other tensors in a safe format do not make pickled weights acceptable.
    shutil.copy(checkpoint / "heads.safetensors", checkpoint / "other.safetensors")
    with pytest.raises(ModelError, match=r"no model\.safetensors.*can run code"):
        handle_for(checkpoint)


def test_sharded_weights(checkpoint: Path):
    tensors = load_file(checkpoint / "model.safetensors")
    expected = load_helix(checkpoint, device="cpu").hidden(random_ids(1, 9))
    (checkpoint / "model.safetensors").unlink()
    names, half = sorted(tensors), len(tensors) // 2
    where = {name: f"model-0000{1 + (i >= half)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file(
            {n: tensors[n] for n in names if where[n] == file}, checkpoint / file, metadata={"format": "pt"}
        )
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert_same_output(load_helix(checkpoint, device="cpu").hidden(random_ids(1, 9)), expected)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="model-00002-of-00002"):
        handle_for(checkpoint)
    index.write_text("[1]")
    with pytest.raises(ModelError, match="cannot be read"):
        handle_for(checkpoint)


def spoil_config_syntax(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def spoil_config_size(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "hidden_size": 24}))


def spoil_config_layers(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "layers_block_type_string": "M+?*+"}))


def spoil_config_type(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))


def spoil_config_missing(directory: Path) -> None:
    (directory / "config.json").unlink()


def spoil_weights_truncated(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[: len(content) // 2])


def spoil_weights_empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def spoil_weights_incomplete(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    del tensors["layers.2.mixer.D"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def spoil_heads_truncated(directory: Path) -> None:
    (directory / "heads.safetensors").write_bytes(b"abc")


def spoil_heads_description(directory: Path) -> None:
    (directory / "heads.json").unlink()


def spoil_heads_names(directory: Path) -> None:
    (directory / "heads.json").write_text('{"phenotypes": ["functional_mrl"]}')


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_config_syntax,
        spoil_config_size,
        spoil_config_layers,
        spoil_config_type,
        spoil_config_missing,
        spoil_weights_truncated,
        spoil_weights_empty,
        spoil_weights_incomplete,
        spoil_heads_truncated,
        spoil_heads_description,
        spoil_heads_names,
    ],
)
def test_a_damaged_checkpoint_is_a_model_error_that_names_it(checkpoint: Path, spoil):
    spoil(checkpoint)
    with pytest.raises(ModelError, match=str(checkpoint)):
        load_helix(checkpoint, device="cpu")


def test_a_checkpoint_without_heads(checkpoint: Path):
    (checkpoint / "heads.safetensors").unlink()
    assert load_heads(checkpoint) is None
    assert load_helix(checkpoint, device="cpu").heads is None


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no usable GPU"):
            resolve_device("cuda:0")


def test_the_released_size():
    from helix_sae.models.helix.architecture import build_network

    network = build_network(released_architecture(), seed=0)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(5.19e6, rel=0.005)
    assert len(network.layers) == 9


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 10, "head_dim": 8}, {"n_groups": 5}, {"key_value_heads": 3}, {"layers": "M-"}]
)
def test_sizes_that_do_not_fit_each_other(sizes: dict):
    with pytest.raises(ValueError, match=r"must divide|should match"):
        Architecture(**sizes)
