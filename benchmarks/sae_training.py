"""Speed of SAE training steps, as multiples of the dense floor, and against sae-lens.

The floor is five dense matrix products of the step's shape (encode, decode, gradients of codes, of decoder and of
encoder). Floor, our step and the peer's run in turn, round after round; medians are reported. One JSON line a case:

    python benchmarks/sae_training.py --peer-python ENV/bin/python

Cases: ``l1_dense`` (half the codes active), ``l1_sparse`` (at most 40 active: the encoder's bias starts where that many
pre-activations are positive, as after training), ``topk``, ``batchtopk`` (k = 32), ``loop``
(the whole of ``train_saes``, batches and history included, against its bare steps), ``four`` (four SAEs at once against one),
``twenty`` (L1 dictionaries of 96 x 192 at batches of 2,048 and of 256: four sites and five seeds, each with its own order of
the data, against one of them; the whole of ``train_saes``, and beside it what the five products of one cost, alone and twenty
times).
``--device cuda`` measures on a GPU, ``--precision bfloat16`` with products in that precision (the floor's too);
``--compiled`` with ``torch.compile``; ``product_fraction`` is what five dense products of the step's shape would make of the
rate that one large bfloat16 product reaches there.

AuxK is on in ``topk`` and ``batchtopk``; the line says how many features were dead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from saelens_peer import Peer
from toy_activations import mixtures

from helix_sae.sae import ArrayBatches, SaeConfig, SaeKey, estimate_scaling, parse_sae_config, train_saes
from helix_sae.sae.learner import Learner, Precision
from helix_sae.sae.workers import SERIAL, Workers, borrowed_threads

CASES: dict[str, dict[str, Any]] = {
    "l1_dense": {"architecture": "relu", "l1_coefficient": 1e-7, "sparsity_warmup_fraction": 0.0},
    "l1_sparse": {"architecture": "relu", "l1_coefficient": 3e-3, "sparsity_warmup_fraction": 0.0},
    "topk": {"architecture": "topk", "k": 32},
    "batchtopk": {"architecture": "batchtopk", "k": 32},
}
TWENTY_STEPS = 100
"""Steps of each training of ``twenty``."""
SETTLE = 12
"""Steps before the clock starts."""
SPARSE_L0 = 32
"""Active features a token at the start of ``l1_sparse``; training moves it, and the line says where to."""


def seconds(work: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors, which other work on the machine moves less."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processor


def product_rate(device: str, size: int = 8192) -> float:
    """FLOP/s of one large bfloat16 product on a GPU."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    work = lambda: torch.mm(a, b)  # noqa: E731
    seconds(work, 3)
    return 2 * size**3 / seconds(work, 10)


def floor(n: int, d_in: int, d_sae: int, device: str, precision: Precision) -> Callable[[], object]:
    """The five matrix products, into memory that is there."""
    shapes = ((n, d_in), (d_sae, d_in), (n, d_sae))
    dtype = getattr(torch, precision)
    x, rows, codes = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
    narrow, weight, wide = (torch.empty_like(t) for t in (x, rows, codes))

    def products() -> None:
        torch.mm(x, rows.T, out=wide)
        torch.mm(codes, rows, out=narrow)
        torch.mm(x, rows.T, out=wide)
        torch.mm(codes.T, x, out=weight)
        torch.mm(codes.T, x, out=weight)

    return products


def learner(config: SaeConfig, x: Tensor, options: argparse.Namespace) -> Learner:
    return Learner(
        SaeKey("a", "a"),
        config.resolve(x.shape[1]),
        estimate_scaling(x[:65_536], "a").to(options.device),
        n_steps=10_000,
        seed=0,
        precision=options.precision,
        compiled=options.compiled,
    )


def where(options: argparse.Namespace) -> dict[str, Any]:
    return {"device": options.device, "precision": options.precision, "compiled": options.compiled}


def make_sparse(one: Learner, z: Tensor) -> None:
    """Lower the encoder's bias until ``SPARSE_L0`` features are active."""
    with torch.no_grad():
        pre = z[:512] @ one.params["encoder"].T
        one.params["b_enc"].fill_(
            -float(torch.quantile(pre.flatten()[: 10**6], 1 - SPARSE_L0 / pre.shape[1]))
        )


def step_case(
    case: str, x: Tensor, d_sae: int, options: argparse.Namespace, peer: Peer, peak: float | None
) -> dict[str, Any]:
    batch, rounds, repeats, device = options.batch, options.rounds, options.repeats, options.device
    config = parse_sae_config(
        {**CASES[case], "expansion_factor": d_sae / x.shape[1], "sparsity_warmup_fraction": 0.0}
        if case.startswith("l1")
        else {**CASES[case], "expansion_factor": d_sae / x.shape[1]}
    )
    one = learner(config, x, options)
    z = one.scaling.apply(x.to(device))
    if case == "l1_sparse":
        make_sparse(one, z[:batch])
    turn = [0]
    last: list[Any] = []
    threads = torch.get_num_threads()
    workers = Workers(threads) if threads > 1 and device == "cpu" else SERIAL

    def step() -> None:
        start = turn[0] * batch % (z.shape[0] - batch + 1)
        turn[0] += 1
        last[:] = [one.step(z[start : start + batch], workers)]

    with borrowed_threads():
        for _ in range(SETTLE):
            step()
    products = floor(batch, x.shape[1], d_sae, device, options.precision)
    products()
    peer.start(case, x, batch, d_sae, SETTLE)
    times: dict[str, list[float]] = {"floor": [], "ours": [], "peer": []}
    for _ in range(rounds):
        times["floor"].append(seconds(products, repeats))
        with borrowed_threads():
            times["ours"].append(seconds(step, repeats))
        theirs = peer.time(repeats)
        if theirs is not None:
            times["peer"].append(theirs)
    workers.close()
    ours, base = statistics.median(times["ours"]), statistics.median(times["floor"])
    theirs = statistics.median(times["peer"]) if times["peer"] else None
    return {
        "case": case,
        "batch": batch,
        "d_in": x.shape[1],
        "d_sae": d_sae,
        "l0": float(last[0].fired.sum()) / batch,
        "dead_features": int(one.dead().sum()),
        "floor_ms": 1e3 * base,
        "step_ms": 1e3 * ours,
        "multiple_of_floor": ours / base,
        "vectors_per_second": batch / ours,
        "product_fraction": None if peak is None else 10 * batch * x.shape[1] * d_sae / ours / peak,
        "peer": peer.describe(),
        "peer_step_ms": None if theirs is None else 1e3 * theirs,
        "peer_l0": peer.l0,
        "times_as_fast_as_peer": None if theirs is None else theirs / ours,
    }


def loop_case(x: Tensor, d_sae: int, options: argparse.Namespace, epochs: int = 4) -> dict[str, Any]:
    """Share of the whole loop's time that its bare steps take: shuffled batches, scaling, history rows, and export."""
    config = parse_sae_config({**CASES["topk"], "expansion_factor": d_sae / x.shape[1]})
    batch, device = options.batch, options.device
    n_steps = epochs * (x.shape[0] // batch)
    threads = torch.get_num_threads()
    workers = Workers(threads) if threads > 1 and device == "cpu" else SERIAL
    bare, whole = [], []
    train = partial(train_saes, log_every=20, **where(options))
    for _ in range(options.rounds):
        one = learner(config, x, options)
        z = one.scaling.apply(x.to(device))
        parts = z.split(batch)[: n_steps // epochs] * epochs
        with borrowed_threads():
            bare.append(seconds(lambda: [one.step(part, workers) for part in parts], 1))  # noqa: B023
        batches = ArrayBatches({"a": x[: n_steps // epochs * batch]}, batch, seed=0, epochs=epochs)
        whole.append(seconds(lambda: train(batches, {"a": config}), 1))  # noqa: B023
    workers.close()
    share = statistics.median(bare) / statistics.median(whole)
    return {"case": "loop", "batch": batch, "d_sae": d_sae, "steps": n_steps, "share_of_bare_steps": share}


def four_case(x: Tensor, d_sae: int, options: argparse.Namespace) -> dict[str, Any]:
    """Cost of training four SAEs together, as a multiple of one."""
    config = parse_sae_config({**CASES["topk"], "expansion_factor": d_sae / x.shape[1]})
    batch = options.batch
    n_steps = 2 * (x.shape[0] // batch)
    sites = {f"site {i}": x for i in range(4)}
    one, four = [], []
    train = partial(train_saes, **where(options))
    for _ in range(options.rounds):
        for number, times in ((1, one), (4, four)):
            arrays = dict(list(sites.items())[:number])
            batches = ArrayBatches(
                {site: a[: n_steps // 2 * batch] for site, a in arrays.items()}, batch, epochs=2
            )
            times.append(seconds(lambda: train(batches, {"a": config}), 1))  # noqa: B023
    return {
        "case": "four",
        "batch": batch,
        "d_sae": d_sae,
        "one_ms": 1e3 * statistics.median(one) / n_steps,
        "four_ms": 1e3 * statistics.median(four) / n_steps,
        "four_over_one": statistics.median(four) / statistics.median(one),
    }


def twenty_case(options: argparse.Namespace, batch: int, d_in: int = 96, d_sae: int = 192) -> dict[str, Any]:
    """Cost of a step of twenty small dictionaries, as a multiple of one's, and of the products alone."""
    x = mixtures(32 * batch, d_in)
    config = parse_sae_config(
        {
            "architecture": "relu",
            "l1_coefficient": 1.3e-3,
            "learning_rate": 1e-2,
            "expansion_factor": d_sae / d_in,
            "stretch": False,  # once after the training, of a sample that has nothing to do with its length
        }
    )
    sites = [f"site {i}" for i in range(4)]

    def trained(names: list[str], n_seeds: int) -> None:
        arrays = dict.fromkeys(names, x)
        orders = lambda seed: ArrayBatches(arrays, batch, seed, epochs=4)  # noqa: E731
        train_saes(
            orders, {"a": config}, n_seeds=n_seeds, n_steps=TWENTY_STEPS, log_every=20, **where(options)
        )

    products = floor(batch, d_in, d_sae, options.device, options.precision)

    def on_one_thread() -> None:
        with borrowed_threads():
            for _ in range(TWENTY_STEPS):
                products()

    work = {
        "floor": on_one_thread,
        "one": lambda: trained(sites[:1], 1),
        "twenty": lambda: trained(sites, 5),
    }
    rounds = [{name: spent(act) for name, act in work.items()} for _ in range(options.rounds)]
    wall, cpu = (
        {name: 1e3 * statistics.median(times[name][i] for times in rounds) / TWENTY_STEPS for name in work}
        for i in (0, 1)
    )
    return {
        "case": "twenty",
        "batch": batch,
        "d_in": d_in,
        "d_sae": d_sae,
        "milliseconds": wall,
        "processor_milliseconds": cpu,
        "twenty_over_one": wall["twenty"] / wall["one"],
        "processor_twenty_over_one": cpu["twenty"] / cpu["one"],
        "processor_one_over_floor": cpu["one"] / cpu["floor"],
        "processor_twenty_over_twenty_floors": cpu["twenty"] / (20 * cpu["floor"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=[*CASES, "loop", "four", "twenty"])
    parser.add_argument("--d-sae", nargs="+", type=int, default=[1024, 4096])
    parser.add_argument("--d-in", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="steps a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compiled", action="store_true", help="steps through torch.compile")
    parser.add_argument("--peer-python", help="interpreter of an environment with sae-lens")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x = mixtures(options.tokens, options.d_in)
    peer = Peer(options.peer_python, options.threads)
    on_cpu = options.device == "cpu"
    peak = None if on_cpu else product_rate(options.device)
    common = {
        "benchmark": "sae_training",
        "torch": torch.__version__,
        "threads": options.threads,
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(),
        "precision": options.precision,
        "compiled": options.compiled,
    }
    if "twenty" in options.cases:  # of a size of its own
        for batch in (2048, 256):
            print(json.dumps({**common, **twenty_case(options, batch)}), flush=True)
    for d_sae in options.d_sae:
        for case in options.cases:
            if case == "twenty":
                continue
            if case == "loop":
                line = loop_case(x, d_sae, options)
            elif case == "four":
                line = four_case(x, d_sae, options)
            else:
                line = step_case(case, x, d_sae, options, peer, peak)
            print(json.dumps({**common, **line}), flush=True)
    peer.close()


if __name__ == "__main__":
    main()
