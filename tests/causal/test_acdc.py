"""Circuit discovery on a chain whose wiring is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from causal_toys import LinearDictionary, LinearReadOut, RandomSae, ToyChain, pair_table, random_chain

from helix_sae.causal.acdc import acdc
from helix_sae.causal.alignment import align_table
from helix_sae.causal.effects import effects
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import attribution
from helix_sae.causal.interventions import patched_outputs
from helix_sae.errors import ConfigurationError

# Channels of the wired chain.
AND_A, AND_B, OR_A, OR_B, EXCITER, INHIBITOR, SATURATING, DECOY, OUT = range(9)
WIDTH = 9
SITE = "layers.0"


def gate_chain(gate: str) -> ToyChain:
    """The letter U sets channels at its token, A does not; the second layer computes one gate into OUT."""
    embedding = torch.zeros(14, WIDTH)
    u = 10
    embedding[u, :] = 1.0
    embedding[u, OUT] = 0.0
    embedding[u, SATURATING] = 5.0
    embedding[u, DECOY] = 50.0
    if gate == "inhibition":  # both sides have the exciter, the source the inhibitor as well
        embedding[:, EXCITER] = 1.0
        embedding[:, INHIBITOR] = 1.0
        embedding[u, INHIBITOR] = 0.0

    def compute(x: torch.Tensor) -> torch.Tensor:
        y = {
            "and": torch.relu(x[..., AND_A] + x[..., AND_B] - 1.0),
            "or": 1.0 - torch.relu(1.0 - x[..., OR_A] - x[..., OR_B]),
            "inhibition": torch.relu(x[..., EXCITER] - 2.0 * x[..., INHIBITOR]),
            "saturation": 1.0 - torch.relu(1.0 - x[..., SATURATING]),
        }[gate]
        out = torch.zeros_like(x)
        out[..., OUT] = y
        return out

    return ToyChain(embedding, [torch.zeros_like, compute])


def one_pair():
    table = pair_table(1, np.random.default_rng(0), length=8, cds=False)
    table["source_sequence"], table["target_sequence"] = "AAAAAAAA", "UUUUUUUU"
    return align_table(table)


READ = LinearReadOut(torch.eye(WIDTH)[OUT], variance=0.5)
NEURONS = {SITE: LinearDictionary(torch.eye(WIDTH))}


def gate_effects(
    gate: str, method: str, start: str = "source", direction: str = "source_to_target"
) -> np.ndarray:
    """Effects of the nine channels."""
    found = effects(
        Experiment(gate_chain(gate), NEURONS, READ, one_pair(), direction=direction), method, start=start
    )
    return found.values[SITE][0, :WIDTH]


def expected(**channels: float) -> np.ndarray:
    out = np.zeros(WIDTH)
    for name, value in channels.items():
        out[globals()[name]] = value
    return out


class TestGates:
    """Known answer 2, effect by effect. DECOY is by far the largest difference and never has an effect."""

    def test_and_needs_both(self):
        np.testing.assert_allclose(gate_effects("and", "exact"), expected(), atol=1e-6)
        np.testing.assert_allclose(
            gate_effects("and", "exact", "patched"), expected(AND_A=1, AND_B=1), atol=1e-6
        )
        # One gradient at the source sees a closed gate; the path does not.
        np.testing.assert_allclose(gate_effects("and", "atp"), expected(), atol=1e-6)
        np.testing.assert_allclose(gate_effects("and", "ig"), expected(AND_A=0.5, AND_B=0.5), atol=1e-6)

    def test_or_has_a_backup(self):
        np.testing.assert_allclose(gate_effects("or", "exact"), expected(OR_A=1, OR_B=1), atol=1e-6)
        np.testing.assert_allclose(gate_effects("or", "exact", "patched"), expected(), atol=1e-6)
        # Where both are on already the gradient is zero, and so is each alone; only the pair is needed.
        np.testing.assert_allclose(
            gate_effects("or", "atp", direction="target_to_source"), expected(), atol=1e-6
        )
        np.testing.assert_allclose(gate_effects("or", "ig"), expected(OR_A=0.5, OR_B=0.5), atol=1e-6)

    def test_inhibition_is_found_though_the_gate_is_closed(self):
        np.testing.assert_allclose(gate_effects("inhibition", "exact"), expected(INHIBITOR=1), atol=1e-6)
        # relu(1 - 2) is flat at the source.
        np.testing.assert_allclose(gate_effects("inhibition", "atp"), expected(), atol=1e-6)

    def test_saturation_misleads_the_gradient(self):
        np.testing.assert_allclose(gate_effects("saturation", "exact"), expected(SATURATING=1), atol=1e-6)
        np.testing.assert_allclose(gate_effects("saturation", "atp"), expected(SATURATING=5), atol=1e-6)
        np.testing.assert_allclose(
            gate_effects("saturation", "atp", direction="target_to_source"), expected(), atol=1e-6
        )

    @pytest.mark.parametrize("gate", ["and", "or"])
    def test_from_source_and_left_out_average_to_the_path(self, gate):
        """For gates of two inputs integrated gradients are the mean of the two exact estimates."""
        mean = 0.5 * (gate_effects(gate, "exact") + gate_effects(gate, "exact", "patched"))
        np.testing.assert_allclose(gate_effects(gate, "ig"), mean, atol=1e-6)


@pytest.mark.parametrize(
    ("gate", "circuit", "size"),
    [
        ("and", {AND_A, AND_B}, 2),
        ("or", {OR_A, OR_B}, 1),
        ("inhibition", {INHIBITOR}, 1),
        ("saturation", {SATURATING}, 1),
    ],
)
@pytest.mark.parametrize("screening", ["none", "halving"])
def test_acdc_recovers_each_gate(gate, circuit, size, screening):
    """Precision 1 always; both inputs of AND, one of the two of OR (its backup is not needed)."""
    scores = {SITE: effects(Experiment(gate_chain(gate), NEURONS, READ, one_pair()), "ig").values[SITE][0]}
    found = acdc(
        Experiment(gate_chain(gate), NEURONS, READ, one_pair()), scores, taus=[0.1, 0.5], screening=screening
    )
    for order in ("attribution", "random_0", "random_1", "random_2"):
        kept = {int(f) for f in found.circuit(0.1, order)["feature"]}
        assert kept <= circuit
        assert len(kept) == size
        last = found.steps[found.steps["order"] == order].iloc[-1]
        assert last["divergence"] == pytest.approx(0.0, abs=1e-6)
    assert (found.nodes["feature"] == "error").sum() == 4


def test_magnitude_ranking_is_fooled_by_the_decoy():
    """Known answer 3: the largest difference has no read-out."""
    found = effects(Experiment(gate_chain("saturation"), NEURONS, READ, one_pair()))
    assert int(np.argmax(found.magnitude[SITE][0])) == DECOY
    assert found.values[SITE][0, DECOY] == 0.0
    assert int(np.argmax(np.abs(found.values[SITE][0]))) == SATURATING


@pytest.fixture
def several_sites():
    sites = ("layers.0.mixer", "layers.1", "layers.2.mixer")
    pairs = align_table(pair_table(5, np.random.default_rng(0)))
    return random_chain(6), {s: RandomSae(6, 7, i) for i, s in enumerate(sites)}, pairs


def test_every_accepted_step_has_the_divergence_of_its_circuit(several_sites):
    """The resumed search against a full pass with what is left, at the end of every tau."""
    model, saes, pairs = several_sites
    probe = LinearReadOut(torch.linspace(-1, 2, 6))
    ig = effects(Experiment(model, saes, probe, pairs), "ig")
    scores = attribution(ig, np.ones(len(pairs)))
    taus = [1e-6, 1e-4, 1e-2, 1.0]
    found = acdc(Experiment(model, saes, probe, pairs, token_budget=50), scores, taus=taus)
    for order, part in found.nodes.groupby("order"):
        steps = found.steps[found.steps["order"] == order]
        for tau in taus:
            nodes = {site: (part.loc[part["site"] == site, "tau"] >= tau).to_numpy() for site in scores}
            out = patched_outputs(Experiment(model, saes, probe, pairs), [nodes])
            last = steps[steps["tau"] == tau].iloc[-1]
            assert last["divergence"] == pytest.approx(out.divergence.mean(), abs=1e-6)
            assert last["edit_magnitude"] == pytest.approx(out.magnitude.mean(), abs=1e-6)
            assert last["n_nodes"] == sum(k.sum() for k in nodes.values())


def test_circuits_are_nested_and_growth_stays_below_tau(several_sites):
    model, saes, pairs = several_sites
    probe = LinearReadOut(torch.linspace(-1, 2, 6))
    scores = attribution(effects(Experiment(model, saes, probe, pairs), "atp"), np.ones(len(pairs)))
    found = acdc(
        Experiment(model, saes, probe, pairs), scores, taus=[1e-3, 1e-5, 1e-1], n_random_orders=1, seed=3
    )
    for _, steps in found.steps.groupby("order"):
        assert (steps["n_nodes"].diff().dropna() <= 0).all()
        growth = steps["divergence"].diff().to_numpy()[1:]
        removed = steps["n_removed"].to_numpy()[1:] > 0
        assert (growth[removed] < steps["tau"].to_numpy()[1:][removed] + 1e-6).all()
    assert found.steps["n_nodes"].iloc[0] == 3 * 8
    again = acdc(
        Experiment(model, saes, probe, pairs), scores, taus=[1e-3, 1e-5, 1e-1], n_random_orders=1, seed=3
    )
    assert again.nodes.equals(found.nodes)


def test_a_screened_start_is_labelled(several_sites):
    model, saes, pairs = several_sites
    probe = LinearReadOut(torch.linspace(-1, 2, 6))
    scores = attribution(effects(Experiment(model, saes, probe, pairs), "atp"), np.ones(len(pairs)))
    start = {site: np.arange(8) < 3 for site in scores}
    found = acdc(Experiment(model, saes, probe, pairs), scores, taus=[1e-4], start=start, n_random_orders=0)
    assert found.metadata["starts_from"] == "a screened set"
    assert found.steps["n_nodes"].iloc[0] == 9
    with pytest.raises(ConfigurationError, match="thresholds"):
        acdc(Experiment(model, saes, probe, pairs), scores, taus=[])
