"""The public Python face: the original project's quick example on a helical object, checked against the library's parts."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helix_twin import tiny_network, twin_hidden

import helix_sae
from helix_sae import SAEAnalysisPipeline, SparseAutoencoder, load_helix, train_saes
from helix_sae.analysis import AnalysisResult, tokens_of_dataset
from helix_sae.errors import ConfigurationError, DataError, ModelError
from helix_sae.models.helix.architecture import save_network
from helix_sae.models.upstream import undisturbed_logging

N_SEQUENCES = 12
IDS = dict(zip("ACGUNE", range(7, 13), strict=True))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("analysis") / "checkpoint"
    save_network(tiny_network(), directory)
    return directory


def helical_model(directory: Path, **options):
    """helical's own object, imported and made as in the README, but for where its weights are."""
    with undisturbed_logging():
        from helical.models.helix_mrna import HelixmRNA, HelixmRNAConfig

        configuration = HelixmRNAConfig(device="cpu", **options)
        configuration.config["model_name"] = str(directory)
        return HelixmRNA(configurer=configuration)


def random_sequences(seed: int = 0, n: int = N_SEQUENCES) -> list[str]:
    """Of different lengths; every other one with codon markers, as helical wants them."""
    rng = np.random.default_rng(seed)
    made = ["".join(rng.choice(list("ACGU"), int(rng.integers(20, 45)))) for _ in range(n)]
    return [
        text if i % 2 else text[:5] + "".join(f"E{text[at : at + 3]}" for at in range(5, len(text), 3))
        for i, text in enumerate(made)
    ]


def quick_example(
    directory: Path, sequences: list[str], *, num_epochs: int = 100, **options
) -> AnalysisResult:
    model = helical_model(directory)
    pipeline = SAEAnalysisPipeline(model, expansion_factor=4, l1_coefficient=1e-3, **options)
    return pipeline.run_full_analysis(
        dataset=model.process_data(sequences),
        layer_filter=lambda name, m: "mixer" in name.lower(),
        num_epochs=num_epochs,
    )


@pytest.fixture(scope="module")
def results(checkpoint: Path) -> AnalysisResult:
    return quick_example(checkpoint, random_sequences())


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([[IDS[letter] for letter in text]])


def nucleotides(text: str) -> np.ndarray:
    return np.array([letter != "E" for letter in text])


def test_the_lines_of_the_readme(results: AnalysisResult):
    sae, codes = results.saes["layers.0.mixer"], results.codes["layers.0.mixer"]
    assert isinstance(sae, SparseAutoencoder)
    assert set(results.saes) == set(results.codes) == {"layers.0.mixer", "layers.2.mixer"}
    assert sae.d_sae == 4 * sae.d_in == 4 * 16
    assert codes.codes.shape == (sum(map(len, random_sequences())), sae.d_sae)
    assert sorted(results.metrics["site"]) == sorted(results.saes)
    assert {"explained_variance", "l0", "dead_share"} <= set(results.metrics)
    assert {"step", "loss", "explained_variance", "l0", "dead_share"} <= set(results.history)


def test_the_activations_are_those_of_each_sequence_alone(results: AnalysisResult, checkpoint: Path):
    """Neither helical's padding on the left, its [SEP], nor the other sequences of a batch leave a trace in the codes."""
    alone = load_helix(checkpoint, device="cpu")
    for site, codes in results.codes.items():
        assert list(codes.sequence_id) == [str(i) for i in range(N_SEQUENCES)]
        for i, text in enumerate(random_sequences()):
            activations = alone.capture(ids_of(text), [site])[site][0]
            rows = slice(int(codes.offsets[i]), int(codes.offsets[i + 1]))
            assert np.array_equal(codes.is_nucleotide[rows], nucleotides(text))
            expected = results.saes[site].encode(activations).detach().numpy()
            np.testing.assert_allclose(codes.codes[rows].toarray(), expected, rtol=1e-4, atol=1e-5)


def test_the_codes_decode_to_the_reconstruction(results: AnalysisResult, checkpoint: Path):
    alone = load_helix(checkpoint, device="cpu")
    text = random_sequences()[3]
    for site, codes in results.codes.items():
        sae = results.saes[site]
        rows = codes.codes[int(codes.offsets[3]) : int(codes.offsets[4])].toarray()
        decoded = sae.decode(torch.from_numpy(rows))
        activations = alone.capture(ids_of(text), [site])[site][0]
        torch.testing.assert_close(decoded, sae(activations), rtol=1e-4, atol=1e-5)
        assert np.allclose(sae.W_dec.detach().norm(dim=1), 1, atol=1e-5)
        error = (decoded - activations).square().sum()
        assert error < 0.5 * (activations - activations.mean(0)).square().sum()


def test_the_metrics_are_those_of_the_held_out_sequences(results: AnalysisResult, checkpoint: Path):
    alone, texts = load_helix(checkpoint, device="cpu"), random_sequences()
    assert results.held_out.sum() == 1  # a tenth of twelve
    chosen = [text for text, out in zip(texts, results.held_out, strict=True) if out]
    for row in results.metrics.to_dict("records"):
        sae = results.saes[row["site"]]
        x = torch.cat([alone.capture(ids_of(t), [row["site"]])[row["site"]][0] for t in chosen]).double()
        assert row["n_tokens"] == len(x) == sum(map(len, chosen))
        with torch.no_grad():
            codes = sae.encode(x.float())
            error = (sae.decode(codes).double() - x).square().sum()
        explained = 1 - error / (x - x.mean(0)).square().sum()
        assert row["explained_variance"] == pytest.approx(float(explained), abs=1e-4)
        assert row["l0"] == pytest.approx(float((codes > 0).sum(1).double().mean()), abs=0.05)


def test_nothing_is_learned_from_the_held_out_sequences(results: AnalysisResult, checkpoint: Path):
    texts, others = random_sequences(), random_sequences(seed=9)
    texts = [other if out else text for text, other, out in zip(texts, others, results.held_out, strict=True)]
    again = quick_example(checkpoint, texts)
    assert np.array_equal(again.held_out, results.held_out)
    for site, sae in results.saes.items():
        found = again.saes[site].state_dict()
        for name, tensor in sae.state_dict().items():
            # Not to the bit: batches of other lengths give activations that differ in the last place.
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    assert not np.allclose(again.metrics["mse"], results.metrics["mse"], rtol=1e-3)


def test_the_embeddings_are_pooled_over_nucleotides(results: AnalysisResult):
    network = tiny_network()
    for text, found in zip(random_sequences(), results.embeddings, strict=True):
        hidden = twin_hidden(network, ids_of(text))[0].numpy()
        np.testing.assert_allclose(found, hidden[nucleotides(text)].mean(0), rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_results(results: AnalysisResult, checkpoint: Path):
    again = quick_example(checkpoint, random_sequences())
    for site, sae in results.saes.items():
        assert all(torch.equal(again.saes[site].state_dict()[n], t) for n, t in sae.state_dict().items())
        assert (again.codes[site].codes != results.codes[site].codes).nnz == 0
    assert again.metrics.equals(results.metrics)
    other = quick_example(checkpoint, random_sequences(), seed=1)
    site = "layers.0.mixer"
    assert not torch.equal(other.saes[site].W_dec, results.saes[site].W_dec)


def test_more_epochs_are_more_steps(results: AnalysisResult, checkpoint: Path):
    longer = quick_example(checkpoint, random_sequences(), num_epochs=300)
    assert longer.history["step"].max() == 3 * results.history["step"].max()
    assert (longer.metrics["mse"] < results.metrics["mse"]).all()


def test_the_model_is_mended_in_place(checkpoint: Path):
    """helical does not chain its layers: without the mending, the first nucleotide would not reach the last."""
    model = helical_model(checkpoint)
    pipeline = SAEAnalysisPipeline(model)
    assert pipeline.model.module is model.model
    first, second = (model.get_embeddings(model.process_data([text])) for text in ("ACGUACGU", "CCGUACGU"))
    assert not np.allclose(first[0, -2], second[0, -2], atol=1e-4)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (lambda name, m: type(m).__name__.endswith("Mixer"), {"layers.0.mixer", "layers.2.mixer"}),
        (lambda name, m: name == "layers.2", {"layers.2"}),
        (lambda name, m: name == "embeddings", {"embeddings"}),
    ],
)
def test_the_layer_filter_sees_names_and_modules(checkpoint: Path, chosen, expected: set[str]):
    model = helical_model(checkpoint)
    pipeline = SAEAnalysisPipeline(model, architecture="topk", k=4)
    found = pipeline.run_full_analysis(model.process_data(["ACGUACGU" * 4] * 3), chosen, num_epochs=1)
    assert set(found.saes) == set(found.codes) == expected
    assert all(np.diff(codes.codes.indptr).max() <= 4 for codes in found.codes.values())


def test_one_sequence_is_measured_on_itself(checkpoint: Path):
    found = quick_example(checkpoint, ["ACGUACGUGGCA"], num_epochs=2)
    assert not found.held_out.any()
    assert (found.metrics["n_tokens"] == 12).all()


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.99])
def test_the_share_that_is_held_out(checkpoint: Path, fraction: float):
    found = quick_example(checkpoint, random_sequences(n=8), num_epochs=1, validation_fraction=fraction)
    assert found.held_out.sum() == min(7, round(fraction * 8))
    lengths = np.array([len(text) for text in random_sequences(n=8)])
    measured = lengths[found.held_out].sum() if found.held_out.any() else lengths.sum()
    assert (found.metrics["n_tokens"] == measured).all()


@pytest.mark.parametrize("model", [None, object(), torch.nn.Linear(2, 2)])
def test_other_models_are_refused(model: object):
    with pytest.raises(ModelError, match="is no model of a known kind"):
        SAEAnalysisPipeline(model)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"validation_fraction": -0.1}, "validation_fraction is -0.1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"expansion_factor": 0}, "expansion_factor"),
        ({"l1_coefficient": -1.0}, "l1_coefficient"),
        ({"architecture": "dense"}, "dense"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_options_that_cannot_be(checkpoint: Path, options: dict, named: str):
    with pytest.raises(ConfigurationError, match=named):
        SAEAnalysisPipeline(helical_model(checkpoint), **options)


def test_what_cannot_be_analysed(checkpoint: Path):
    model = helical_model(checkpoint)
    pipeline = SAEAnalysisPipeline(model)
    dataset = model.process_data(["ACGU", "GGCAU"])
    with pytest.raises(
        ConfigurationError, match=r"takes none of the model's sites: embeddings, layers\.0\.mixer"
    ):
        pipeline.run_full_analysis(dataset, layer_filter=lambda name, m: "attention" in name)
    with pytest.raises(ConfigurationError, match="num_epochs is 0"):
        pipeline.run_full_analysis(dataset, num_epochs=0)
    for wrong in (["ACGU"], dataset.remove_columns("input_ids"), None):
        with pytest.raises(DataError, match=r"no column input_ids.*process_data"):
            pipeline.run_full_analysis(wrong)
    with pytest.raises(DataError, match="Row 1 of the dataset holds no nucleotide"):
        pipeline.run_full_analysis(model.process_data(["ACGU", "EEE"]))
    with pytest.raises(DataError, match="holds no sequence"):
        pipeline.run_full_analysis(dataset.select([]))


def test_tokens_of_a_dataset(checkpoint: Path):
    """A marker belongs to the nucleotide that follows it; [PAD] and [SEP] to none."""
    dataset = helical_model(checkpoint).process_data(["AEACGEUUU", "ACE", "NG"])
    found = tokens_of_dataset(dataset)
    assert [t.ids.tolist() for t in found] == [ids_of(t)[0].tolist() for t in ("AEACGEUUU", "ACE", "NG")]
    assert found[0].nucleotide.tolist() == [0, 1, 1, 2, 3, 4, 4, 5, 6]
    assert found[0].is_nucleotide.tolist() == [t != "E" for t in "AEACGEUUU"]
    assert found[1].nucleotide.tolist() == [0, 1, 1]
    assert found[2].nucleotide.tolist() == [0, 1]


def test_the_four_names():
    from helix_sae.analysis import SAEAnalysisPipeline as pipeline
    from helix_sae.models.helix.loading import load_helix as loads
    from helix_sae.sae import SparseAutoencoder as autoencoder
    from helix_sae.sae import train_saes as trains

    assert (SAEAnalysisPipeline, load_helix, SparseAutoencoder, train_saes) == (
        pipeline,
        loads,
        autoencoder,
        trains,
    )
    assert {"SAEAnalysisPipeline", "SparseAutoencoder", "load_helix", "train_saes"} <= set(dir(helix_sae))
    assert set(helix_sae.__all__) <= set(dir(helix_sae))
    with pytest.raises(AttributeError, match="no attribute 'load_helics'"):
        _ = helix_sae.load_helics


def test_the_import_is_quick_and_quiet(project_path: Path):
    """What a name needs is loaded when it is first used."""
    script = """
import logging, os, random, socket, sys, warnings
import numpy
before = (logging.root.level, list(logging.root.handlers), list(warnings.filters), dict(os.environ),
          random.getstate(), repr(numpy.random.get_state()), socket.socket, sys.excepthook)
import helix_sae
after = (logging.root.level, list(logging.root.handlers), list(warnings.filters), dict(os.environ),
         random.getstate(), repr(numpy.random.get_state()), socket.socket, sys.excepthook)
print([i for i, (a, b) in enumerate(zip(before, after)) if a != b])
print([name for name in ("torch", "helical", "kedro", "pandas", "transformers") if name in sys.modules])
"""
    run = partial(subprocess.run, capture_output=True, text=True, timeout=60, check=True)
    said = run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(project_path / "src"), "PATH": ""}
    ).stdout
    assert said.split("\n")[:2] == ["[]", "[]"]
