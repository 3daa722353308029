"""Training and encoding on a GPU: the same gradients, the same quality, and a state that can be resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sae_toys import CONFIGS, D_IN, random_params, superposition

from helix_sae.errors import DataError
from helix_sae.sae import ArrayBatches, SaeKey, Scratch, train_saes
from helix_sae.sae.compiled import compiled_gradients
from helix_sae.sae.learner import Learner
from helix_sae.sae.objective import StepContext
from helix_sae.sae.registry import architecture_of
from helix_sae.sae.scaling import estimate_scaling
from helix_sae.sae.sparse import to_dense

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

NAMES = sorted(CONFIGS)


def batches(n: int = 3000, epochs: int = 3) -> ArrayBatches:
    return ArrayBatches({"a": superposition(n)}, 128, seed=3, epochs=epochs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [0.0, -1.7], ids=["dense", "sparse"])
@pytest.mark.parametrize("n_dead", [0, 3])
def test_gradients_are_those_of_the_cpu(name: str, bias: float, n_dead: int) -> None:
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params = random_params(config, bias=bias)
    x = superposition(203)
    z = estimate_scaling(x, "toy").apply(x)
    dead = torch.arange(config.d_sae) < n_dead if n_dead else None
    here = objective.gradients(params, z, StepContext(0.7, dead))
    there = objective.gradients(
        {name: value.cuda() for name, value in params.items()},
        z.cuda(),
        StepContext(0.7, None if dead is None else dead.cuda()),
    )
    for parameter, gradient in here.gradients.items():
        largest = max(float(gradient.abs().max()), 1e-3)
        torch.testing.assert_close(
            there.gradients[parameter].cpu(), gradient, rtol=1e-4, atol=1e-4 * largest, msg=parameter
        )
    assert torch.equal(there.fired.cpu(), here.fired)
    torch.testing.assert_close(there.loss.cpu(), here.loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_architectures_learn_as_well_as_on_the_cpu(precision: str) -> None:
    heldout = list(ArrayBatches({"a": superposition(500, seed=9)}, 250))
    here = train_saes(batches(), CONFIGS, holdout=heldout)
    there = train_saes(batches(), CONFIGS, holdout=heldout, device="cuda", precision=precision)
    for key, evaluation in here.evaluations.items():
        sae = there.saes[key]
        assert next(sae.parameters()).device.type == "cpu"
        found, expected = (e.summary["explained_variance"] for e in (there.evaluations[key], evaluation))
        assert found > expected - 0.03, (key, found, expected)


def test_a_state_is_resumed(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, *_: object) -> None:
        if step > 20:
            raise Stop

    scratch = Scratch(tmp_path, "toy", every_steps=5)
    with pytest.raises(Stop):
        train_saes(batches(), CONFIGS, device="cuda", scratch=scratch, progress=stop, log_every=7)
    resumed = train_saes(batches(), CONFIGS, device="cuda", scratch=scratch, log_every=7)
    whole = train_saes(batches(), CONFIGS, device="cuda", log_every=7)
    assert resumed.steps_done == whole.steps_done
    for key, sae in whole.saes.items():
        assert isinstance(key, SaeKey)
        x = superposition(200, seed=4)
        with torch.no_grad():
            difference = (sae(x) - resumed.saes[key](x)).norm() / (sae(x) - x.mean(0)).norm()
        # Sums on a GPU have no fixed order, and training amplifies their last bits.
        assert float(difference) < 0.2, key


@pytest.mark.parametrize("name", NAMES)
def test_codes(name: str) -> None:
    sae = train_saes(batches(500, 1), {"a": CONFIGS[name]}).by_site()["a"]
    x = superposition(300, seed=2)
    with torch.no_grad():
        expected = sae.encode(x)
        sae = sae.to("cuda")
        dense, active = sae.encode(x.cuda()), sae.encode_active(x.cuda())
    torch.testing.assert_close(dense.cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(to_dense(active, sae.d_sae).cpu(), expected, rtol=1e-4, atol=1e-4)


def test_dead_features_are_restarted() -> None:
    config = CONFIGS["topk"].model_copy(update={"dead_after_tokens": 300}).resolve(D_IN)
    x = superposition(1000)
    scaling = estimate_scaling(x, "toy").to("cuda")
    one = Learner(SaeKey("a", "a"), config, scaling, n_steps=1000, seed=0)
    with torch.no_grad():
        one.params["b_enc"][:5] = -1e3
    z = scaling.apply(x.cuda())
    for part in z.split(100):
        one.step(part)
    assert float(one.params["b_enc"][:5].detach().min()) > -1


@pytest.mark.parametrize("name", NAMES)
def test_compiled_gradients(name: str) -> None:
    config = CONFIGS[name].resolve(D_IN)
    objective = architecture_of(config).objective(config)
    params = {key: value.cuda() for key, value in random_params(config, bias=-0.5).items()}
    x = superposition(203)
    z = estimate_scaling(x, "toy").apply(x).cuda()
    compiled = compiled_gradients(objective)
    for weight in (0.3, 0.7):
        expected, found = (f(params, z, StepContext(weight)) for f in (objective.gradients, compiled))
        for parameter, gradient in expected.gradients.items():
            largest = max(float(gradient.abs().max()), 1e-3)
            torch.testing.assert_close(
                found.gradients[parameter], gradient, rtol=1e-4, atol=1e-4 * largest, msg=parameter
            )
        assert torch.equal(found.fired, expected.fired)


def test_values_that_are_not_finite_are_found() -> None:
    x = superposition(3000)
    x[2000] = torch.nan
    broken = ArrayBatches({"a": x}, 100)
    with pytest.raises(DataError, match="became nan at step 20:"):
        train_saes(broken, {"a": CONFIGS["topk"]}, device="cuda", calibration_tokens=500)
