"""Models fine-tuned with helical: read from what it saves, and read out exactly as it does."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helix_twin import random_ids, tiny_network
from safetensors.torch import save_file

from helix_sae.errors import ModelError
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.helix.finetuned import FineTunedModel, import_fine_tuned
from helix_sae.models.helix.heads import HEAD_DESCRIPTION, HEAD_WEIGHTS, load_fine_tuned_head
from helix_sae.models.helix.loading import from_helical, load_helix
from helix_sae.models.registry import handle_for
from helix_sae.models.upstream import import_helical, undisturbed_logging
from helix_sae.mrna.tokens import tokenize

SEQUENCES = ["ACGUACGUUGCA", "GGGAUCC", "UUACGACGACGAUGGCGAAUAA"]
CLASSES = ("low", "middle", "high")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    save_network(tiny_network(), directory)
    return directory


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory):
    """helical's own object after a training step's worth of change, and the file that it saves."""
    helix = import_helical("helix_mrna")
    configuration = helix.HelixmRNAConfig(device="cpu", batch_size=1)
    configuration.config["model_name"] = str(base)
    with undisturbed_logging():
        model = helix.HelixmRNAFineTuningModel(configuration, "classification", 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (*model.fine_tuning_head.parameters(), *model.model.layers[-1].parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    with undisturbed_logging():
        model.save_model(str(path))
    return model, path


@pytest.fixture(scope="module")
def imported(base: Path, trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("imported") / "checkpoint"
    return import_fine_tuned(trained[1], base, directory, task="classification", outputs=CLASSES)


def test_the_head_reads_what_helical_reads(trained, imported: Path):
    """Against ``get_outputs`` of the mended object, sequence by sequence."""
    upstream, _ = trained
    from_helical(upstream)
    with undisturbed_logging():
        expected = np.concatenate([upstream.get_outputs(upstream.process_data([s])) for s in SEQUENCES])
    head = load_fine_tuned_head(imported)
    assert head is not None
    assert (head.task, head.outputs) == ("classification", CLASSES)
    model = FineTunedModel(load_helix(imported, device="cpu"))
    found = model.embed([tokenize(s) for s in SEQUENCES]) @ head.weight.numpy().T + head.bias.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_batches_and_padding_do_not_matter(imported: Path):
    model = FineTunedModel(load_helix(imported, device="cpu"))
    tokens = [tokenize(s) for s in SEQUENCES]
    np.testing.assert_allclose(model.embed(tokens), model.embed(tokens, token_budget=1), atol=1e-5)
    with pytest.raises(ModelError, match="three tokens"):
        model.embed([tokenize("AC")])


@pytest.mark.parametrize(
    "site", ["embeddings", "layers.0.mixer", "layers.1", "layers.3.self_attn", "layers.4"]
)
def test_run_resume_and_suffix_agree(imported: Path, site: str):
    model, ids, start = FineTunedModel(load_helix(imported, device="cpu")), random_ids(3, 13), 5
    nucleotide = torch.ones(3, 13, dtype=torch.bool)
    nucleotide[1, 11:] = False
    with torch.no_grad():
        cache = model.cache(ids)
        value = model.at_site(site, cache)
        assert value.shape[1] == 13
        torch.testing.assert_close(value, model.capture(ids, [site])[site], atol=1e-6, rtol=1e-6)
        change = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        change[:, :start] = 0
        whole = model.pool(model.run(ids, {site: lambda x: x + change}), nucleotide)
        resumed = model.pool(model.resume(site, value + change, cache), nucleotide)
        torch.testing.assert_close(resumed, whole, atol=1e-5, rtol=1e-5)
        index = torch.tensor([2, 0, 2])
        prefix = model.prefix_states(cache, start).rows(index)
        changed = torch.ones(3, 13 - start, dtype=torch.bool) if site.endswith("mixer") else None
        hidden = model.resume_suffix(site, (value + change)[index, start:], prefix, changed=changed)
        torch.testing.assert_close(
            model.pool_suffix(hidden, prefix, nucleotide), whole[index], atol=1e-5, rtol=1e-5
        )


def test_the_state_dict_as_safetensors_is_the_same(base: Path, trained, imported: Path, tmp_path: Path):
    state = {name: t.contiguous() for name, t in torch.load(trained[1], weights_only=True).items()}
    save_file(state, tmp_path / "model.safetensors")
    again = import_fine_tuned(
        tmp_path / "model.safetensors", base, tmp_path / "again", task="classification", outputs=CLASSES
    )
    assert handle_for(again).fingerprint == handle_for(imported).fingerprint


def test_the_head_belongs_to_the_fingerprint(imported: Path):
    before = handle_for(imported).fingerprint
    path = imported / HEAD_DESCRIPTION
    text = path.read_text()
    path.write_text(text.replace("middle", "centre"))
    assert handle_for(imported).fingerprint != before
    path.write_text(text)


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("bare", [True, False])
def test_a_file_that_would_run_code_is_refused_unopened(base: Path, tmp_path: Path, bare: bool):
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    if bare:
        path.write_bytes(pickle.dumps({"model.x": _Trap(sprung)}))
    else:
        torch.save({"model.x": _Trap(sprung)}, path)
    with pytest.raises(ModelError, match="cannot be read as weights alone"):
        import_fine_tuned(path, base, tmp_path / "out", task="regression", outputs=["functional_mrl"])
    assert not sprung.exists()
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_named(base: Path, trained, imported: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="3 outputs, but 1 were named"):
        import_fine_tuned(trained[1], base, tmp_path / "x", task="regression", outputs=["functional_mrl"])
    with pytest.raises(ModelError, match=r"no config\.json"):
        import_fine_tuned(trained[1], tmp_path, tmp_path / "x", task="classification", outputs=CLASSES)
    save_file({"other": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="does not hold a fine-tuned model"):
        import_fine_tuned(
            tmp_path / "other.safetensors", base, tmp_path / "x", task="regression", outputs=["a"]
        )
    assert load_fine_tuned_head(base) is None
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    (spoilt / HEAD_WEIGHTS).write_bytes((imported / HEAD_WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match="cannot be read"):
        load_fine_tuned_head(spoilt)
    (spoilt / HEAD_DESCRIPTION).write_text('{"task": "classification", "outputs": ["one"]}')
    with pytest.raises(ModelError, match="does not fit"):
        load_fine_tuned_head(spoilt)
