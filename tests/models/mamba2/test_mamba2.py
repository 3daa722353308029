"""Mamba2-mRNA: what the installed one does wrong, and that the mended one is the recurrence, in every way it is run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from helix_twin import random_ids
from test_model import noise, sequences
from torch import Tensor, nn

from helix_sae.analysis import SAEAnalysisPipeline
from helix_sae.errors import ConfigurationError, ModelError
from helix_sae.models import adopt, handle_for, open_model
from helix_sae.models.contract import Model, StillTokens
from helix_sae.models.mamba2 import mending
from helix_sae.models.mamba2.diagnosis import Defects, diagnose, plain_mixer, tiny_network
from helix_sae.models.mamba2.mending import mend
from helix_sae.models.mamba2.model import Mamba2Model
from helix_sae.models.upstream import import_helical, undisturbed_logging
from helix_sae.mrna.tokens import tokenize

SITES = ("embeddings", *(f"layers.{k}{part}" for k in range(3) for part in (".mixer", "")))
TIME = 17


def upstream_class() -> type:
    return import_helical("mamba2_mrna.model").Mamba2Model


def tiny() -> Mamba2Model:
    with torch.random.fork_rng(), undisturbed_logging():
        torch.manual_seed(1)
        module = tiny_network(upstream_class())
    mend(module)
    return Mamba2Model(module)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny().save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def upstream_model(directory: Path, **options):
    helical = import_helical("mamba2_mrna")
    configuration = helical.Mamba2mRNAConfig(device="cpu", **options)
    configuration.config["model_name"] = str(directory)
    with undisturbed_logging():
        return helical.Mamba2mRNA(configurer=configuration)


def test_what_the_installed_one_does_wrong():
    """A right network, but for float64; and an embedding that is the same for every sequence."""
    found = diagnose(upstream_class())
    assert found == Defects(False, False, True, False, False, True)
    assert "float64" in found.describe()
    assert "get_embeddings" in found.describe()


@pytest.mark.parametrize(
    ("field", "damage"),
    [
        ("context_is_lost", lambda mixer, x, mask: torch.zeros_like(x)),
        ("scan_wrong_past_chunk", lambda mixer, x, mask: torch.cat([mixer(x[:, :4]), mixer(x[:, 4:])], 1)
         if x.shape[1] > 4 else mixer(x)),
        ("padding_leaks", lambda mixer, x, mask: mixer(x)),
        ("batches_differ", lambda mixer, x, mask: mixer(x, attention_mask=mask) * len(x)),
    ],
)  # fmt: skip
def test_the_diagnosis_sees_each_defect(field: str, damage):
    class Damaged(upstream_class()):
        def __init__(self, config) -> None:
            super().__init__(config)
            for layer in self.layers:
                layer.mixer = Wrapped(layer.mixer, damage)

    found = diagnose(Damaged)
    assert getattr(found, field), found


class Wrapped(nn.Module):
    """A mixer whose output is another, and which has its attributes."""

    def __init__(self, mixer: nn.Module, damage) -> None:
        super().__init__()
        self.__dict__["inner"], self.damage = mixer, damage
        self._parameters.update(mixer._parameters)
        self._modules.update(mixer._modules)

    def forward(self, hidden_states: Tensor, cache_params=None, attention_mask=None, **_):
        return self.damage(self.__dict__["inner"], hidden_states, attention_mask)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["inner"], name)


def test_mended_it_is_right_and_that_is_said_once(caplog: pytest.LogCaptureFixture, monkeypatch):
    monkeypatch.setattr(mending, "_SAID", set())
    with caplog.at_level(logging.INFO, logger="helix_sae"):
        mended, again = tiny(), tiny()
    assert [r.message for r in caplog.records if r.name.startswith("helix_sae")] == [
        f"Mamba2-mRNA: found in the installed forward: {diagnose(upstream_class()).describe()}. A right one takes its place."
    ]
    assert torch.equal(mended.hidden(random_ids(1, 9)), again.hidden(random_ids(1, 9)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("time", [1, 4, 13, 300])
def test_the_mixer_is_the_recurrence(time: int, dtype: torch.dtype, tolerance: float):
    mixer = tiny().module.to(dtype).layers[1].mixer
    x = noise(torch.empty(2, time, 8)).to(dtype)
    torch.testing.assert_close(mixer(x).double(), plain_mixer(mixer, x), rtol=tolerance, atol=tolerance)


def test_the_mended_network_is_the_installed_one(checkpoint: Path):
    ids = random_ids(2, 40)
    expected = upstream_model(checkpoint).model.eval()(input_ids=ids)[0]
    model = open_model(handle_for(checkpoint, device="cpu"))
    torch.testing.assert_close(model.hidden(ids), expected, rtol=1e-4, atol=1e-5)
    exact = open_model(handle_for(checkpoint, device="cpu", dtype="float64"))
    assert exact.hidden(ids).dtype == torch.float64
    torch.testing.assert_close(exact.hidden(ids).float(), expected, rtol=1e-4, atol=1e-5)


def test_embeddings_know_nothing_of_batches_and_padding():
    model, mixed = tiny(), [t for t in sequences([5, 40, 17, 300, 38]) if t.is_nucleotide.any()]
    mixed = [t._replace(ids=np.where(t.ids == 12, 7, t.ids)) for t in mixed]
    expected = np.concatenate([model.embed([t]) for t in mixed])
    np.testing.assert_allclose(model.embed(mixed), expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_a_helical_object_is_adopted_and_its_padding_harmless(checkpoint: Path):
    made = upstream_model(checkpoint, max_length=12, batch_size=2)
    model = adopt(made)
    assert isinstance(model, Mamba2Model)
    assert model.module is made.model
    ids = random_ids(1, 5)
    padded = torch.cat([torch.full((1, 4), 4), ids], dim=1)
    mask = torch.tensor([[0] * 4 + [1] * 5])
    left = made.model(input_ids=padded, attention_mask=mask)[0][:, 4:]
    torch.testing.assert_close(left, model.hidden(ids), rtol=1e-4, atol=1e-5)
    embeddings = made.get_embeddings(made.process_data(["ACGUACGUACG", "GGGAUC"]))
    assert np.array_equal(embeddings[0], embeddings[1])  # as the diagnosis says: not ours to mend


def test_it_knows_its_folder_and_reads_no_codon_markers(checkpoint: Path):
    handle = handle_for(checkpoint)
    assert (handle.kind, handle.codon_markers) == ("mamba2_mrna", "none")
    with pytest.raises(ConfigurationError, match="codon_markers: none, not cds"):
        handle_for(checkpoint, codon_markers="cds")
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        handle_for(checkpoint)


def test_a_config_that_states_more_layers_than_the_weights_have_is_refused(checkpoint: Path):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 100_000}))
    with pytest.raises(
        ModelError, match=r"num_hidden_layers: 100,000, but the weights have room for no more than"
    ):
        open_model(handle_for(checkpoint, device="cpu"))


@pytest.mark.parametrize("site", SITES)
def test_every_short_way_ends_where_a_whole_pass_does(site: str):
    model, ids, start = tiny(), random_ids(3, TIME), 6
    cache = model.cache(ids)
    value = model.at_site(site, cache)
    change = noise(value)
    change[:, :start] = 0
    expected = model.run(ids, {site: lambda x: x + change})
    torch.testing.assert_close(model.resume(site, value + change, cache), expected, rtol=1e-4, atol=1e-5)
    plain = Model.cache(model, ids)
    torch.testing.assert_close(
        Model.resume(model, site, value + change, plain), expected, rtol=1e-4, atol=1e-5
    )
    prefix = model.prefix_states(cache, start).rows(torch.tensor([2, 0, 2]))
    found = model.resume_suffix(site, (value + change)[[2, 0, 2], start:], prefix)
    torch.testing.assert_close(found, expected[[2, 0, 2], start:], rtol=1e-4, atol=1e-5)
    still = StillTokens(torch.zeros(3, TIME - start, dtype=torch.bool))
    found = model.resume_suffix(
        site, (value + change)[:, start:], model.prefix_states(cache, start), still=still
    )
    torch.testing.assert_close(found, expected[:, start:], rtol=1e-4, atol=1e-5)


def test_the_analysis_in_one_object_takes_it(checkpoint: Path):
    made = upstream_model(checkpoint, max_length=12)
    texts = ["ACGUACGUACG", "GGGAUC", "UUUUACGU", "GCGCGCAAAU"]
    result = SAEAnalysisPipeline(made, architecture="topk", k=2, batch_size=8).run_full_analysis(
        made.process_data(texts), num_epochs=1
    )
    assert set(result.saes) == {f"layers.{k}.mixer" for k in range(3)}
    np.testing.assert_allclose(result.embeddings, adopt(made).embed([tokenize(t) for t in texts]), rtol=1e-5)


def test_nothing_but_the_models_knows_that_it_exists(project_path: Path):
    source = project_path / "src" / "helix_sae"
    files = [path for path in source.rglob("*.py") if path.relative_to(source).parts[0] != "models"]
    assert len(files) > 100
    assert [p.name for p in files if "mamba2" in p.read_text(encoding="utf-8").lower()] == []


def test_an_untrained_twin():
    model = tiny()
    twin = model.untrained(3)
    assert twin.site_names == model.site_names
    assert torch.equal(twin.hidden(random_ids(1, 5)), model.untrained(3).hidden(random_ids(1, 5)))
    assert not torch.allclose(twin.module.embeddings.weight, model.module.embeddings.weight)
