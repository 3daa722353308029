"""Other objectives for small dictionaries, held against the default's L1: one JSON line an objective.

Beside the finished run that it reads (``--data`` of ``kedro run``), each objective is trained here by autograd, three
seeds (start and order of the data) at the four mixers side by side, with the default's width, price, steps and batch::

    python benchmarks/objectives.py --objectives l1 small_l2 unit_product
    python benchmarks/objectives.py --objectives topk gradient_topk
    python benchmarks/objectives.py --objectives l1 end_to_end
    python benchmarks/objectives.py --objectives transcoder

``l1`` is the default's loss without its start from a larger dictionary that is cut back; ``small_l2`` adds a small L2 on the encoder
(arXiv:2603.04198; the decoder has unit rows, all start tied); ``unit_product`` holds the inner product of a feature's
encoder and decoder row at 1 (arXiv:2605.18629); ``topk`` and ``gradient_topk`` keep the k largest, the second by
``z + z |W_dec^T grad|`` while it is trained (arXiv:2411.10397); ``end_to_end`` goes on from ``l1`` through the rest of the
model: reconstruction, change of the read-out and next-token KL, balanced (arXiv:2503.17272); ``transcoder`` predicts the
output of mixers and feed-forwards from their input, with an affine skip (arXiv:2501.18823).

Columns: explained variance, L0 and matched cosine of the seeds on held-out tokens, cross-entropy recovered (mean of the
sites), features for 80 % of the effect and lead over PCA and ICA (closeness at equally many nodes), each mean and range.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from torch import Tensor, nn

from helix_sae.causal.baselines import fit_baselines
from helix_sae.mrna.tokens import tokenize_table
from helix_sae.pipelines.causal_acdc.experiment import curve_pairs
from helix_sae.pipelines.causal_acdc.parameters import CausalParameters
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.sae import certify, downstream_measures, estimate_scaling, evaluate_sae, run_spliced
from helix_sae.sae.architectures.relu import ReluAutoencoder, stretched
from helix_sae.sae.architectures.topk import TopKAutoencoder
from helix_sae.sae.config import ReluConfig, TopKConfig
from helix_sae.sae.objective import fold

ROOT = Path(__file__).resolve().parents[1]
SEEDS, K, SMALL_L2, HELD_OUT = 3, 6, 1e-3, 32_768
TUNING_STEPS, TUNING_SEQUENCES = 60, 6
Params = dict[str, Tensor]


class Run:
    """A finished run: activations, model, read-out, pairs."""

    def __init__(self, data: Path) -> None:
        bootstrap_project(ROOT)
        session = KedroSession.create(project_path=ROOT, runtime_params={"data_root": str(data)})
        catalog = session.load_context().catalog
        self.specification, self.pairs = catalog.load("experiment"), catalog.load("sequence_pairs")
        self.parameters = CausalParameters.model_validate(catalog.load("params:causal_acdc"))
        self.training = SaeTrainingParameters.model_validate(catalog.load("params:sae_training"))
        self.table, self.handle = catalog.load("mrna_table"), catalog.load("model")
        self.experiment = self.specification.open()
        activations = catalog.load("activations")
        split = self.table.set_index("sequence_id")["split"]
        sides: dict[str, dict[str, list[np.ndarray]]] = {"discovery": {}, "validation": {}}
        for part in activations.parts(list(self.experiment.sites)):
            for site in self.experiment.sites:
                for i, name in enumerate(part.sequence_ids):
                    rows = part.activations[site][part.offsets[i] : part.offsets[i + 1]]
                    sides[str(split[name])].setdefault(site, []).append(rows)
        self.train, self.held = (
            {site: torch.from_numpy(np.concatenate(rows)).float() for site, rows in side.items()}
            for side in sides.values()
        )
        self.held = {site: x[:: max(1, len(x) // HELD_OUT)][:HELD_OUT] for site, x in self.held.items()}

    def tokens(self, split: str, n: int) -> list[Any]:
        """Tokens of some records, short ones."""
        kept = self.table[(self.table["split"] == split) & (self.table["sequence"].str.len() <= 200)]
        return tokenize_table(kept.sample(n, random_state=0), self.handle.codon_markers)


# ---------------------------------------------------------------- training of m dictionaries side by side


def start(m: int, d: int, k: int) -> Params:
    """Unit decoder rows, the encoder their copy; each dictionary from its own seed."""
    rows = [torch.randn(k, d, generator=torch.Generator().manual_seed(seed)) for seed in range(m)]
    decoder = nn.functional.normalize(torch.stack(rows), dim=2)
    return {
        "encoder": decoder.clone(),
        "b_enc": torch.zeros(m, 1, k),
        "decoder": decoder,
        "b_dec": torch.zeros(m, 1, d),
    }


def encoded(params: Params, z: Tensor) -> Tensor:
    return torch.relu((z - params["b_dec"]) @ params["encoder"].mT + params["b_enc"])


def kept(codes: Tensor, score: Tensor, k: int) -> Tensor:
    """Codes of the k features of largest score at each token."""
    return codes * torch.zeros_like(codes).scatter(2, score.topk(k, dim=2).indices, 1.0)


def codes_of(name: str, params: Params, z: Tensor, gradient: Tensor | None) -> Tensor:
    codes = encoded(params, z)
    if name == "topk":
        return kept(codes, codes, K)
    if name == "gradient_topk":
        assert gradient is not None
        pull = (gradient @ params["decoder"].mT).abs()
        return kept(codes, codes * (1 + pull / pull.mean(dim=(1, 2), keepdim=True)), K)
    return codes


def loss_of(name: str, params: Params, z: Tensor, target: Tensor, codes: Tensor, price: float) -> Tensor:
    """Summed over the dictionaries, which have nothing in common."""
    rebuilt = codes @ params["decoder"] + params["b_dec"]
    if name == "transcoder":
        rebuilt = rebuilt + z @ params["skip"]
    loss = (target - rebuilt).square().mean(dim=(1, 2)).sum()
    if not name.endswith("topk"):
        loss = loss + price * codes.sum(2).mean(1).sum()
    if name == "small_l2":
        loss = loss + SMALL_L2 * params["encoder"].square().sum(2).mean(1).sum()
    return loss


@torch.no_grad()
def held_to(name: str, params: Params) -> None:
    """Unit decoder rows; the inner product with the encoder's at 1 where it is asked for."""
    params["decoder"].copy_(nn.functional.normalize(params["decoder"], dim=2))
    if name == "unit_product":
        short = 1 - (params["encoder"] * params["decoder"]).sum(2, keepdim=True)
        params["encoder"].add_(short * params["decoder"])


def trained(
    name: str,
    x: list[Tensor],
    params: Params,
    options: dict[str, Any],
    *,
    targets: list[Tensor] | None = None,
    gradients: list[Tensor] | None = None,
) -> Params:
    """Adam with a warm-up and a linear fall, each dictionary on its own order of its own data."""
    n_steps, batch = options["n_steps"], options["batch"]
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=1.0, betas=(0.9, 0.999))
    rngs = [torch.Generator().manual_seed(1000 + i) for i in range(len(x))]
    for step in range(n_steps):
        share = step / n_steps
        rate = options["rate"] * min(1.0, share / 0.02 + 1e-3, (1 - share) / 0.8)
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = [torch.randint(len(data), (batch,), generator=rng) for data, rng in zip(x, rngs, strict=True)]

        def of(data: list[Tensor], rows: list[Tensor] = rows) -> Tensor:
            return torch.stack([values[r] for values, r in zip(data, rows, strict=True)])

        z = of(x)
        codes = codes_of(name, leaves, z, None if gradients is None else of(gradients))
        target = z if targets is None else of(targets)
        optimiser.zero_grad()
        price = options["price"] * min(1.0, share / 0.1)
        loss_of(name, leaves, z, target, codes, price).backward()
        optimiser.step()
        held_to(name, leaves)
    return {key: value.detach() for key, value in leaves.items()}


def exported(name: str, params: Params, i: int, scaling: Any, sample: Tensor) -> Any:
    own = {key: value[i].squeeze(0) if key.startswith("b_") else value[i] for key, value in params.items()}
    k, d = own["decoder"].shape
    if name.endswith("topk"):
        return TopKAutoencoder(
            TopKConfig(architecture="topk", k=K, expansion_factor=k / d).resolve(d), fold(own, scaling)
        )
    config = ReluConfig(architecture="relu", expansion_factor=k / d).resolve(d)
    return ReluAutoencoder(config, fold(stretched(own, sample), scaling))


# ---------------------------------------------------------------- through the rest of the model


def read_out_gradients(run: Run, site: str) -> tuple[Tensor, Tensor]:
    """Activations of some discovery records and the gradient of the read-out there."""
    exp, x, gradients = run.experiment, [], []
    tokens = run.tokens("discovery", 500)
    for index in exp.model.batches(tokens, 4096):
        ids, is_nucleotide = exp.model.tensors([tokens[i] for i in index])
        value = exp.model.capture(ids, [site])[site].requires_grad_()
        with torch.enable_grad():
            hidden = exp.model.resume(site, value, exp.model.cache(ids))
            (gradient,) = torch.autograd.grad(exp.read(hidden, is_nucleotide).sum(), value)
        x.append(value.detach()[is_nucleotide])
        gradients.append(gradient[is_nucleotide])
    return torch.cat(x), torch.cat(gradients)


def tuned(run: Run, site: str, params: Params, i: int, scaling: Any, seed: int, price: float) -> Params:
    """A few steps in which the reconstruction also has to leave read-out and next tokens as they are."""
    exp, model = run.experiment, run.experiment.model
    rng = np.random.default_rng(seed)
    tokens = run.tokens("discovery", 600)
    leaves = {key: value[i : i + 1].clone().requires_grad_() for key, value in params.items()}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=3e-4)
    scale: list[Tensor] | None = None
    for _ in range(TUNING_STEPS):
        batch = [tokens[j] for j in rng.choice(len(tokens), TUNING_SEQUENCES, replace=False)]
        ids, is_nucleotide = model.tensors(batch)
        with torch.no_grad():
            cache = model.cache(ids)
            value = model.at_site(site, cache)
            clean = model.resume(site, value, cache)
            y, logits = exp.read(clean, is_nucleotide), model.next_token_logits(clean)
        z = scaling.apply(value.reshape(-1, value.shape[-1])).unsqueeze(0)
        codes = encoded(leaves, z)
        rebuilt = codes @ leaves["decoder"] + leaves["b_dec"]
        put = (rebuilt[0] / scaling.scale + scaling.mean).view(value.shape)
        hidden = model.resume(site, put, cache)
        kl = nn.functional.kl_div(
            model.next_token_logits(hidden)[is_nucleotide].log_softmax(-1),
            logits[is_nucleotide].log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )
        parts = [(z - rebuilt).square().mean(), (exp.read(hidden, is_nucleotide) - y).square().mean(), kl]
        # Balanced: each counts as much as it did at the beginning.
        scale = scale or [part.detach().clamp(min=1e-8) for part in parts]
        loss = sum(part / unit for part, unit in zip(parts, scale, strict=True)) * scale[0]
        optimiser.zero_grad()
        (loss + price * codes.sum(2).mean()).backward()
        optimiser.step()
        held_to("end_to_end", leaves)
    return {key: value.detach() for key, value in leaves.items()}


def parts_and_inputs(run: Run, parts: list[str], split: str, n: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs of modules of the model, at nucleotides."""
    model, seen = run.experiment.model, {part: ([], []) for part in parts}
    tokens = run.tokens(split, n)
    for index in model.batches(tokens, 4096):
        ids, is_nucleotide = model.tensors([tokens[i] for i in index])

        def note(part: str, mask: Tensor, module: Any, given: Any, named: Any, out: Any) -> None:
            entering = given[0] if given else named["hidden_states"]
            seen[part][0].append(entering[mask].float())
            seen[part][1].append((out[0] if isinstance(out, tuple) else out)[mask].float())

        handles = [
            model.module.get_submodule(part).register_forward_hook(
                partial(note, part, is_nucleotide), with_kwargs=True
            )
            for part in parts
        ]
        with torch.no_grad():
            model.run(ids, {})
        for handle in handles:
            handle.remove()
    return {part: (torch.cat(a), torch.cat(b)) for part, (a, b) in seen.items()}


# ---------------------------------------------------------------- an objective from start to end


def dictionaries(
    run: Run, name: str, options: dict[str, Any], begun: dict[str, Params]
) -> list[dict[str, Any]]:
    """Autoencoders of each seed at every site."""
    sites = list(run.experiment.sites)
    scalings = {site: estimate_scaling(run.train[site], site) for site in sites}
    x, gradients = [scalings[site].apply(run.train[site]) for site in sites], None
    if name == "gradient_topk":
        found = [read_out_gradients(run, site) for site in sites]
        x = [scalings[site].apply(values) for site, (values, _) in zip(sites, found, strict=True)]
        gradients = [g for _, g in found] * SEEDS
    many = x * SEEDS
    if name == "end_to_end":
        plain = begun["l1"]
        each = [
            tuned(run, site, plain, i, scalings[site], i, options["price"])
            for i, site in enumerate(sites * SEEDS)
        ]
        params = {key: torch.cat([one[key] for one in each]) for key in plain}
    else:
        begin = start(len(many), many[0].shape[1], options["width"])
        params = trained(name, many, begin, options, gradients=gradients)
    begun[name] = params
    return [
        {
            site: exported(
                name, params, seed * len(sites) + i, scalings[site], x[i][:: max(1, len(x[i]) // HELD_OUT)]
            )
            for i, site in enumerate(sites)
        }
        for seed in range(SEEDS)
    ]


def judged(run: Run, name: str, made: list[dict[str, Any]]) -> dict[str, Any]:
    """Held-out measures of each seed, and the seeds against each other."""
    sites = list(run.experiment.sites)
    measures = [[evaluate_sae(saes[site], [run.held[site]]).summary for site in sites] for saes in made]
    cosines = [
        certify({f"seed {i}": saes[site] for i, saes in enumerate(made)}, run.held[site], site).summary[
            "pw_mcc"
        ]
        for site in sites
    ]
    means = {site: run.train[site].mean(0) for site in sites}
    tokens = run.tokens("validation", 80)
    ce = [
        float(
            downstream_measures(run_spliced(run.experiment.model, tokens, saes, means))["ce_recovered"].mean()
        )
        for saes in made
    ]
    return {
        "explained_variance": spread(
            [float(np.mean([m["explained_variance"] for m in own])) for own in measures]
        ),
        "l0": spread([float(np.mean([m["l0"] for m in own])) for own in measures]),
        "pw_mcc": spread(cosines),
        "ce_recovered": spread(ce),
    }


def as_handles(run: Run, made: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """All dictionaries, PCA and ICA through one comparison."""
    limits, seed = run.parameters.curves, run.parameters.seed
    rows = curve_pairs(run.pairs, limits.max_pairs, seed)
    exp, table = run.experiment.on(rows), run.pairs.iloc[rows].reset_index(drop=True)
    fitted = {site: x[:: max(1, len(x) // 30_000)].numpy() for site, x in run.train.items()}
    others = fit_baselines(fitted, dict(exp.dictionaries), names=["pca", "ica"], seed=seed)
    candidates = {f"{name}/{i}": saes for name, own in made.items() for i, saes in enumerate(own)}
    found = exp.compare({**candidates, **others}, table, top=limits.ranked_top, necessity="none", seed=seed)
    exact = found.summary[found.summary["ranking"] == "exact"].set_index("dictionary")
    closeness = exact["log_area"]
    out: dict[str, dict[str, Any]] = {}
    for name in ["sae", *made]:
        keys = ["sae"] if name == "sae" else [f"{name}/{i}" for i in range(SEEDS)]
        features = [exact.loc[key, "k_at_level"] for key in keys]
        out[name] = {
            "features_for_80": [None if k is None or np.isnan(float(k)) else int(k) for k in features],
            **{f"lead_over_{o}": spread([float(closeness[k] - closeness[o]) for k in keys]) for o in others},
        }
    return out


def transcoders(run: Run, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Output from input, at mixers and feed-forwards; no handle, for their codes are not of the site's activation."""
    names = run.experiment.model.site_names
    lines: list[dict[str, Any]] = []
    for parts in (
        [n for n in names if n.endswith(".mixer")],
        [n for n in names if n.endswith(".feed_forward")],
    ):
        train = parts_and_inputs(run, parts, "discovery", 900)
        held = parts_and_inputs(run, parts, "validation", 300)
        scalings = {p: tuple(estimate_scaling(v, p) for v in train[p]) for p in parts}

        def scaled(part: str, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return tuple(s.apply(v) for s, v in zip(scalings[part], pair, strict=True))  # noqa: B023

        x, y = zip(*(scaled(p, train[p]) for p in parts), strict=True)
        m, d = len(parts) * SEEDS, x[0].shape[1]
        begin = start(m, d, options["width"]) | {"skip": torch.zeros(m, d, y[0].shape[1])}
        params = trained("transcoder", [*x] * SEEDS, begin, options, targets=[*y] * SEEDS)
        for j, part in enumerate(parts):
            a, b = scaled(part, held[part])
            mine = {key: value[j :: len(parts)] for key, value in params.items()}
            codes = encoded(mine, a.expand(SEEDS, -1, -1))
            rebuilt = codes @ mine["decoder"] + mine["b_dec"] + a @ mine["skip"]
            left = (b - rebuilt).square().sum((1, 2)) / (b - b.mean(0)).square().sum()
            skip = torch.linalg.lstsq(torch.cat([a, torch.ones(len(a), 1)], 1), b).solution
            alone = (b - torch.cat([a, torch.ones(len(a), 1)], 1) @ skip).square().sum()
            cosine = [
                float((mine["decoder"][s] @ mine["decoder"][t].T).max(1).values.mean())
                for s in range(SEEDS)
                for t in range(s)
            ]
            lines.append(
                {
                    "part": part,
                    "explained_variance": spread((1 - left).tolist()),
                    "explained_by_an_affine_map": float(1 - alone / (b - b.mean(0)).square().sum()),
                    "l0": spread((codes > 0).float().sum(2).mean(1).tolist()),
                    "best_cosine": spread(cosine),
                }
            )
    return lines


def spread(values: list[float]) -> dict[str, float]:
    return {
        key: round(float(f(values)), 4) for key, f in (("mean", np.mean), ("lowest", min), ("highest", max))
    }


OBJECTIVES = ("l1", "small_l2", "unit_product", "topk", "gradient_topk", "end_to_end")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--objectives", nargs="+", default=["l1"], choices=[*OBJECTIVES, "transcoder"])
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    run = Run(arguments.data)
    default = run.training.saes[run.training.chosen]
    width = next(iter(run.experiment.dictionaries.values())).d_sae
    options = {
        "n_steps": arguments.steps,
        "batch": run.training.batch_size,
        "width": width,
        "rate": default.learning_rate,
        "price": default.resolve(run.train[run.experiment.sites[0]].shape[1]).penalty,
    }
    report: Callable[..., None] = lambda **line: print(json.dumps(line), flush=True)  # noqa: E731
    if "transcoder" in arguments.objectives:
        for line in transcoders(run, options):
            report(objective="transcoder", **line)
    names = [name for name in OBJECTIVES if name in arguments.objectives]
    made: dict[str, list[dict[str, Any]]] = {}
    lines: dict[str, dict[str, Any]] = {}
    begun: dict[str, Params] = {}
    for name in names:
        begin = time.perf_counter()
        made[name] = dictionaries(run, name, options, begun)
        lines[name] = {"seconds": round(time.perf_counter() - begin, 1), **judged(run, name, made[name])}
    if made:
        handles = as_handles(run, made)
        report(objective="as shipped", seeds=1, **handles["sae"])
        for name in names:
            report(objective=name, seeds=SEEDS, steps=arguments.steps, **lines[name], **handles[name])


if __name__ == "__main__":
    main()
