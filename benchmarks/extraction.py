"""Speed of the mended Helix-mRNA: against helical's own modules, against sgemm, over lengths, and into a store.

A network of the released model's size (9 layers, hidden size 256, 5.2 million parameters) gets random weights. Its passes
and the reference beside them (helical's modules; a float32 product of 2,048 cubed) run in turn, round after round, in one
process; medians are reported. One JSON line a case:

    python benchmarks/extraction.py

Cases:

``helical``    ``speedup_vs_helical``: helical's modules, chained by hand as its own forward does not, against the mended
               network, 2 x 256 nt; both give the same hidden states up to 256 tokens, which is checked.
               ``speedup_of_the_linear_products_alone`` is what it would be if the linear layers ran at the rate of the
               large products, of ``torch.mm`` or oneDNN, whichever is faster, and all else took no time.
``length``     tokens/s and ``gemm_fraction`` at one length: the FLOPs of the linear layers alone, over the time of the
               whole pass, as a share of what ``torch.mm`` reaches; ``onednn_fraction`` is the same share of what oneDNN
               reaches, which on some processors is more. The core of attention, which grows with the square of the
               length, is timed by itself.
``sites``      all default sites in one pass, against one pass a site and against the pass to the end.
``precision``  float32, bfloat16 and compiled passes, with their error against float64.
``store``      the whole of an extraction into a store on this disk, against the bare passes.

On a machine with a CUDA device ``--device cuda`` measures there, against products of 8,192 cubed; ``gemm_fraction`` is a
share of the rate of products in the precision of the pass, ``bfloat16_product_fraction`` of those in bfloat16. A GPU wants
larger batches: ``--budget 131072``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helix_sae.activations import plan_extraction, save_activations, stream_activations
from helix_sae.models.extraction import extract_activations
from helix_sae.models.helix.architecture import build_network, released_architecture, save_network
from helix_sae.models.helix.fast.choice import linear
from helix_sae.models.helix.fast.linear import has_onednn
from helix_sae.models.helix.model import HelixModel
from helix_sae.models.registry import handle_for, open_model
from helix_sae.models.upstream import import_helical, undisturbed_logging
from helix_sae.mrna.tokens import tokenize_table

LETTERS = torch.tensor([7, 8, 9, 10])
CASES = ("helical", "length", "sites", "precision", "store")
GEMM_SIZE, CUDA_GEMM_SIZE = 2048, 8192
COMPARED_LENGTH = 256


def median_seconds(
    works: dict[str, Callable[[], object]], rounds: int, device: str, *, settled: bool = False
) -> dict[str, float]:
    """Median time of each piece of work; they take turns, so that a slow moment strikes all of them.

    ``settled`` has each done twice a turn, the first time untimed: what is short would otherwise be timed with the
    caches that what is long has left behind, which nobody meets who extracts batch after batch.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            seconds = 0.0
            for _ in range(2 if settled else 1):  # the last counts
                began = time.perf_counter()
                work()
                if device != "cpu":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
            if number:  # the first round warms up
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def random_ids(batch: int, time_: int, device: str) -> Tensor:
    index = torch.randint(0, 4, (batch, time_), generator=torch.Generator().manual_seed(time_))
    return LETTERS[index].to(device)


def gemm_size(device: str) -> int:
    return GEMM_SIZE if device == "cpu" else CUDA_GEMM_SIZE


def gemm(device: str, dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """The product that rates are compared with; through ``torch.mm``."""
    size = gemm_size(device)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def onednn_gemm() -> Callable[[], object]:
    """The same product through oneDNN."""
    a, b = torch.randn(GEMM_SIZE, GEMM_SIZE), torch.randn(GEMM_SIZE, GEMM_SIZE)
    return lambda: linear(a, b)


def product_works(model: HelixModel, device: str) -> dict[str, Callable[[], object]]:
    """The products that rates are compared with."""
    works: dict[str, Callable[[], object]] = {"gemm": gemm(device, model.dtype)}
    if device == "cpu" and has_onednn():
        works["onednn"] = onednn_gemm()
    return works


def product_rates(times: dict[str, float], device: str) -> dict[str, float]:
    """FLOP/s of :func:`product_works`."""
    return {name: 2 * gemm_size(device) ** 3 / times[name] for name in ("gemm", "onednn") if name in times}


def linear_flops_per_token(module: nn.Module) -> int:
    """Two for each weight of a linear layer."""
    return 2 * sum(child.weight.numel() for child in module.modules() if isinstance(child, nn.Linear))


def attention_core(model: HelixModel, batch: int, length: int) -> Callable[[], object]:
    """What grows with the square of the length: the weighted sums of one attention layer."""
    layers: Any = model.module.get_submodule("layers")
    attention = next(layer.self_attn for layer in layers if hasattr(layer, "self_attn"))
    shape = (batch, length, attention.num_heads, attention.head_dim)
    query, key, value = (torch.randn(shape, device=model.device, dtype=model.dtype) for _ in range(3))

    def core() -> Tensor:
        return nn.functional.scaled_dot_product_attention(
            *(t.transpose(1, 2) for t in (query, key, value)), is_causal=True
        )

    return core


def chained_by_hand(network: Any, ids: Tensor) -> Tensor:
    """helical's own modules, one after another."""
    hidden = network.embeddings(ids)
    for layer in network.layers:
        hidden = layer(hidden, attention_mask=None, use_cache=False, past_key_value=None)[0]
    return network.norm_f(hidden)


def helical_case(model: HelixModel, rounds: int, device: str) -> dict[str, Any]:
    batch, length = 2, 256
    with undisturbed_logging():
        stock = (
            import_helical("helix_mrna.modeling_helix_mrna")
            .HelixmRNAPretrainedModel(model.module.config)
            .eval()
            .to(device)
        )
    stock.load_state_dict(model.module.state_dict())
    ids = random_ids(batch, length, device)
    torch.testing.assert_close(chained_by_hand(stock, ids), model.hidden(ids), rtol=1e-3, atol=1e-3)
    works = {
        "helical": lambda: chained_by_hand(stock, ids),
        "ours": lambda: model.hidden(ids),
        **product_works(model, device),
    }
    times = median_seconds(works, rounds, device, settled=True)
    tokens = batch * length
    rate = max(product_rates(times, device).values())
    products_alone = linear_flops_per_token(model.module) * tokens / rate
    return {
        "case": "helical",
        "batch": batch,
        "length": length,
        "helical_tokens_per_second": tokens / times["helical"],
        "tokens_per_second": tokens / times["ours"],
        "speedup_vs_helical": times["helical"] / times["ours"],
        "fastest_product_gflops": rate / 1e9,
        "fastest_product_fraction": products_alone / times["ours"],
        "speedup_of_the_linear_products_alone": times["helical"] / products_alone,
    }


def length_cases(
    model: HelixModel, lengths: list[int], budget: int, rounds: int, device: str
) -> Iterator[dict[str, Any]]:
    """One case a length; all lengths take turns, so that they can be compared."""
    works = product_works(model, device)
    batches = {length: max(1, budget // length) for length in lengths}
    for length, batch in batches.items():
        works[f"pass {length}"] = partial(model.hidden, random_ids(batch, length, device))
        works[f"attention {length}"] = attention_core(model, batch, length)
    times = median_seconds(works, rounds, device)
    peak = product_rates(times, device)
    flops = linear_flops_per_token(model.module)
    reference = COMPARED_LENGTH if COMPARED_LENGTH in batches else lengths[0]
    per_token = {length: times[f"pass {length}"] / (batch * length) for length, batch in batches.items()}
    for length, batch in batches.items():
        rate, core = flops / per_token[length], times[f"attention {length}"] / times[f"pass {length}"]
        yield {
            "case": "length",
            "length": length,
            "batch": batch,
            "tokens_per_second": 1 / per_token[length],
            f"speed_over_that_at_{reference}": per_token[reference] / per_token[length],
            "linear_gflops": rate / 1e9,
            "gemm_gflops": peak["gemm"] / 1e9,
            "gemm_fraction": rate / peak["gemm"],
            "onednn_gflops": peak["onednn"] / 1e9 if "onednn" in peak else None,
            "onednn_fraction": rate / peak["onednn"] if "onednn" in peak else None,
            "attention_core_share": core,
            "tokens_per_second_without_attention_core": 1 / (per_token[length] * (1 - core)),
        }


def sites_case(model: HelixModel, budget: int, rounds: int, device: str) -> dict[str, Any]:
    ids = random_ids(budget // 256, 256, device)
    sites = model.default_sites
    times = median_seconds(
        {
            "to the end": lambda: model.hidden(ids),
            "all": lambda: model.capture(ids, sites),
            "each": lambda: [model.capture(ids, [site]) for site in sites],
            "first": lambda: model.capture(ids, sites[:1]),
        },
        rounds,
        device,
    )
    return {
        "case": "sites",
        "length": 256,
        "sites": list(sites),
        "tokens_per_second": ids.numel() / times["all"],
        "times_as_fast_as_one_pass_a_site": times["each"] / times["all"],
        "times_as_fast_as_to_the_end": times["to the end"] / times["all"],
        "times_as_fast_at_the_first_site_alone": times["to the end"] / times["first"],
    }


def precision_cases(directory: Path, budget: int, rounds: int, device: str) -> list[dict[str, Any]]:
    ids = random_ids(max(1, budget // 256), 256, device)
    with torch.no_grad():
        exact = open_model(handle_for(directory, device=device, dtype="float64")).hidden(ids[:4]).cpu()
    float32 = open_model(handle_for(directory, device=device))
    passes: dict[str, Callable[[Tensor], Tensor]] = {"float32": float32.hidden}
    passes["bfloat16"] = open_model(handle_for(directory, device=device, dtype="bfloat16")).hidden
    compiling: dict[str, float] = {}
    for dtype in ("float32",) if device == "cpu" else ("float32", "bfloat16"):
        compiled = open_model(handle_for(directory, device=device, dtype=dtype, compiled=True)).hidden
        began = time.perf_counter()
        try:
            compiled(ids)
            passes[f"{dtype}, compiled"] = compiled
        except RuntimeError as error:  # no C++ compiler, or one that this torch cannot use
            reason = f"not measured: {str(error).splitlines()[0]}"
            print(json.dumps({"case": "precision", "pass": f"{dtype}, compiled", "reason": reason}))
        compiling[f"{dtype}, compiled"] = time.perf_counter() - began
    works: dict[str, Callable[[], object]] = {name: partial(run, ids) for name, run in passes.items()}
    times = median_seconds({**works, "product": gemm(device, torch.bfloat16)}, rounds, device)
    product_rate = 2 * gemm_size(device) ** 3 / times["product"]
    flops = linear_flops_per_token(float32.module)
    lines: list[dict[str, Any]] = []
    for name, run in passes.items():
        error = (run(ids)[:4].double().cpu() - exact).abs()
        lines.append(
            {
                "case": "precision",
                "pass": name,
                "length": 256,
                "tokens_per_second": ids.numel() / times[name],
                "times_as_fast_as_float32": times["float32"] / times[name],
                "bfloat16_product_fraction": ids.numel() * flops / times[name] / product_rate,
                "max_abs_error": float(error.max()),
                "relative_rms_error": float(error.square().mean().sqrt() / exact.square().mean().sqrt()),
                **({"compile_seconds": compiling[name]} if name in compiling else {}),
            }
        )
    return lines


def random_table(n: int, shortest: int, longest: int, seed: int = 0) -> pd.DataFrame:
    """Random sequences without a coding region."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, n)
    return pd.DataFrame(
        {
            "sequence_id": [f"r{i}" for i in range(n)],
            "sequence": ["".join(rng.choice(list("ACGU"), length)) for length in lengths],
            "cds_start": pd.array([None] * n, dtype="Int64"),
            "cds_end": pd.array([None] * n, dtype="Int64"),
        }
    )


def store_case(directory: Path, budget: int, n_sequences: int, device: str) -> dict[str, Any]:
    """Sequences of 200 to 400 nt into shards on disk, once with the model and once as bare passes."""
    handle = handle_for(directory, device=device)
    model = open_model(handle)
    table = random_table(n_sequences, 200, 400)
    compute = partial(extract_activations, handle=handle, sites=model.default_sites, token_budget=budget)
    plan = plan_extraction(table, fingerprint=handle.fingerprint, sites=model.default_sites, compute=compute)
    tokens = tokenize_table(table)
    batches = model.batches(tokens, budget)
    padded = sum(len(index) * max(tokens[i].ids.size for i in index) for index in batches)
    began = time.perf_counter()
    for index in batches:
        model.capture(model.tensors([tokens[i] for i in index])[0], model.default_sites)
    if device != "cpu":
        torch.cuda.synchronize()
    bare = time.perf_counter() - began
    with tempfile.TemporaryDirectory(prefix="helix-sae-") as folder:
        began = time.perf_counter()
        save_activations(stream_activations(plan), folder, f"{folder}/v/activations")
        seconds = time.perf_counter() - began
        n_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    n_tokens = sum(t.ids.size for t in tokens)
    values = n_tokens * len(model.default_sites) * model.hidden_size
    return {
        "case": "store",
        "token_budget": budget,
        "sequences": n_sequences,
        "tokens": n_tokens,
        "sites": len(model.default_sites),
        "tokens_per_second": n_tokens / seconds,
        "activations_per_second": values / seconds,
        "megabytes_per_second": n_bytes / seconds / 1e6,
        "share_of_bare_passes": bare / seconds,
        "padding_share": 1 - n_tokens / padded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 256, 1024, 4096, 12288])
    parser.add_argument("--budget", type=int, default=8192, help="tokens a batch")
    parser.add_argument("--sequences", type=int, default=400, help="of the store case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="helix-sae-") as folder:
        directory = Path(folder)
        save_network(build_network(released_architecture(), seed=0), directory)
        model = open_model(handle_for(directory, device=options.device))
        with torch.no_grad():
            run_cases(model, directory, options)


def run_cases(model: HelixModel, directory: Path, options: argparse.Namespace) -> None:
    common = {
        "benchmark": "extraction",
        "torch": torch.__version__,
        "threads": options.threads,
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(),
        "parameters": sum(p.numel() for p in model.module.parameters()),
    }
    rounds, device, budget = options.rounds, options.device, options.budget

    def report(line: dict[str, Any]) -> None:
        print(json.dumps({**common, **line}), flush=True)

    if "helical" in options.cases:
        report(helical_case(model, rounds, device))
    if "length" in options.cases:
        for line in length_cases(model, options.lengths, budget, rounds, device):
            report(line)
    if "sites" in options.cases:
        report(sites_case(model, budget, rounds, device))
    if "precision" in options.cases:
        for line in precision_cases(directory, budget, rounds, device):
            report(line)
    if "store" in options.cases:
        report(store_case(directory, budget, options.sequences, device))


if __name__ == "__main__":
    main()
