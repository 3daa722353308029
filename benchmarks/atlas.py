"""The atlas at size: seconds and megabytes to build it, and milliseconds for a search, an order and a filter in a browser.

Made-up features on made-up sequences: what is measured is the page, not a model. One JSON line a case::

    python benchmarks/atlas.py --rows 3072 --rows 50000
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from helix_sae.names import feature_name
from helix_sae.reporting.atlas import AtlasTables, feature_pages
from helix_sae.reporting.atlas_folder import atlas_folder
from helix_sae.reporting.maps import feature_places, sequence_map
from helix_sae.reporting.windows import CodedCorpus

N_SITES = 4
N_SEQUENCES, LENGTH, ACTIVE = 2_000, 180, 32
"""Sequences, nucleotides of each, features that are active at a nucleotide."""

CONCEPTS = (
    "start codon",
    "stop codon",
    "upstream start",
    "Kozak strong",
    "GC high",
    "codon position 3",
    "U rich",
)


def corpus(n_features: int, rng: np.random.Generator) -> CodedCorpus:
    """Random sequences and codes; features are active at few places each."""
    letters = rng.choice(list("ACGU"), (N_SEQUENCES, LENGTH))
    start = rng.integers(20, 60, N_SEQUENCES)
    table = pd.DataFrame(
        {
            "sequence_id": [f"record_{i:05d}" for i in range(N_SEQUENCES)],
            "sequence": ["".join(row) for row in letters],
            "cds_start": start,
            "cds_end": start + 90,
            "cluster": [f"family_{i // 2}" for i in range(N_SEQUENCES)],
            "functional_mrl": rng.normal(size=N_SEQUENCES),
        }
    )
    n_tokens = N_SEQUENCES * LENGTH
    columns = rng.integers(0, n_features, (n_tokens, ACTIVE)).astype(np.int32)
    values = rng.exponential(1.0, n_tokens * ACTIVE).astype(np.float32)
    pointers = np.arange(0, n_tokens * ACTIVE + 1, ACTIVE)
    codes = scipy.sparse.csr_array((values, columns.ravel(), pointers), shape=(n_tokens, n_features))
    codes.sum_duplicates()
    nucleotide = np.tile(np.arange(LENGTH), N_SEQUENCES)
    return CodedCorpus(
        table, codes, np.arange(0, n_tokens + 1, LENGTH), nucleotide, np.ones(n_tokens, dtype=bool)
    )


def features(order: list[tuple[str, int]], rng: np.random.Generator) -> pd.DataFrame:
    """A table with every column that a run can give."""
    n = len(order)
    effect = rng.normal(0, 0.2, n)
    yes = np.array(["True", "False"])
    return pd.DataFrame(
        {
            "name": [feature_name(*key) for key in order],
            "site": [site for site, _ in order],
            "feature": [feature for _, feature in order],
            "stability": rng.integers(0, 6, n) / 5,
            "certified": rng.choice(["yes", "no"], n),
            "best_concept": rng.choice([*CONCEPTS, None], n),
            "best_concept_f1": rng.random(n),
            "best_property": rng.choice(["functional_mrl", "structural_gc_content", None], n),
            "association": rng.normal(0, 0.4, n),
            "association_q": rng.random(n) ** 8,
            "association_replicated": rng.choice(yes, n),
            "effect": effect,
            "effect_low": effect - 0.1,
            "effect_high": effect + 0.1,
            "effect_q": rng.random(n) ** 8,
            "effect_confirmed": rng.choice(yes, n),
            "causes": rng.choice(["uaug_make, kozak", "uaug_make", None], n),
            "in_circuit": rng.choice(yes, n),
        }
    )


def built(n_rows: int) -> tuple[dict[str, bytes], float]:
    """The files of an atlas of so many features, and the seconds that it took to make them from codes and tables."""
    rng = np.random.default_rng(0)
    sites = [f"layers.{2 * i}.mixer" for i in range(N_SITES)]
    order = [(site, i) for site in sites for i in range(n_rows // N_SITES)]
    corpora = {site: corpus(n_rows // N_SITES, rng) for site in sites}
    table = features(order, rng)
    decoders = {site: rng.normal(size=(n_rows // N_SITES, 128)).astype(np.float32) for site in sites}
    shares = np.full(N_SEQUENCES * LENGTH, 1 / LENGTH, dtype=np.float32)
    where = (shares, np.arange(len(shares)), np.arange(0, len(shares) + 1, LENGTH))
    mean = scipy.sparse.csr_array(where, shape=(N_SEQUENCES, len(shares)))
    pooled = {site: mean @ of.codes for site, of in corpora.items()}
    tables = AtlasTables(pd.DataFrame({"site": [], "feature": []}), decoders)
    start = time.perf_counter()
    made = feature_pages(corpora, tables, order, target="functional_mrl")
    files = atlas_folder(
        made,
        table,
        places=feature_places(decoders, order),
        sequences=sequence_map(pooled, corpora[sites[0]].table, order),
        title="Benchmark",
        subtitle="made up",
        target="functional_mrl",
    )
    return files, time.perf_counter() - start


def in_the_browser(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Milliseconds that the page itself counts from a change to rows that are drawn, for each kind of change."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        start = time.perf_counter()
        page.goto((folder / "index.html").as_uri())
        page.wait_for_selector(".rows tbody tr:nth-child(3)")
        yield "open_ms", [1e3 * (time.perf_counter() - start)]

        def counted() -> list[float]:
            found = page.evaluate("performance.getEntriesByName('index').map(entry => entry.duration)")
            page.evaluate("performance.clearMeasures('index')")
            return found

        counted()
        page.locator("#search").press_sequentially("start l4 uaug 12")
        yield "search_ms", counted()
        page.fill("#search", "")
        counted()
        for title in ("Feature", "Density", "Effect", "Best concept", "Letters"):
            for _ in range(2):
                page.get_by_role("button", name=title, exact=True).click()
        yield "sort_ms", counted()
        page.get_by_label("Effect from", exact=True).press_sequentially("0.1")
        page.get_by_label("Certified is").select_option("yes")
        page.get_by_label("Best concept holds").press_sequentially("start")
        yield "filter_ms", counted()
        start = time.perf_counter()
        page.locator(".rows tbody th a").first.click()
        page.wait_for_selector("article.feature")
        yield "card_ms", [1e3 * (time.perf_counter() - start)]
        browser.close()


def case(n_rows: int) -> dict[str, Any]:
    """One atlas, built and used."""
    files, seconds = built(n_rows)
    result: dict[str, Any] = {
        "rows": n_rows,
        "build_s": round(seconds, 1),
        "mb": round(sum(map(len, files.values())) / 1e6, 2),
        "index_mb": round(len(files["index.html"]) / 1e6, 2),
    }
    with tempfile.TemporaryDirectory() as name:
        for path, content in files.items():
            (Path(name) / path).parent.mkdir(exist_ok=True)
            (Path(name) / path).write_bytes(content)
        for what, times in in_the_browser(Path(name)):
            result[what] = round(statistics.median(times), 1)
            if len(times) > 1:
                result[f"{what}_most"] = round(max(times), 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, action="append", help="features; may be given more than once")
    for n_rows in parser.parse_args().rows or [3_072, 50_000]:
        print(json.dumps(case(n_rows)), flush=True)


if __name__ == "__main__":
    main()
