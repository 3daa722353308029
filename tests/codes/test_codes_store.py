"""Codes made shard by shard are those of everything encoded at once, and their store is as safe as that of activations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from activation_toys import SITES, WIDTH, save_version, toy_plan, toy_table
from kedro.io.core import Version

from helix_sae.activations import Activations, stream_activations
from helix_sae.codes import CodesPlan, StoredCodes, open_codes, save_codes
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.datasets.token_codes import TokenCodesDataset
from helix_sae.engine import EngineParameters, use_engine
from helix_sae.errors import DataError, StoreError
from helix_sae.sae import InputScaling, SparseAutoencoder, TokenCodes, TopKConfig, random_autoencoder
from helix_sae.sae.codes import nucleotide_of_tokens
from helix_sae.shards.maintenance import find_garbage, list_versions, verify_store


def toy_saes(seed: int = 0) -> dict[str, SparseAutoencoder]:
    config = TopKConfig(k=2, expansion_factor=3).resolve(WIDTH)
    scaling = InputScaling(torch.zeros(WIDTH), 1.0)
    return {site: random_autoencoder(config, scaling, seed + i) for i, site in enumerate(SITES)}


def streamed(n: int = 30, **options: Any) -> Activations:
    return stream_activations(toy_plan(toy_table(n), **options))


def assert_same(stored: StoredCodes, exact: dict[str, TokenCodes]) -> None:
    """Every way of reading gives what is encoded at once."""
    assert list(stored) == list(exact)
    rng = np.random.default_rng(0)
    for site, plain in exact.items():
        codes = stored[site]
        assert codes.sequence_id.tolist() == plain.sequence_id.tolist()
        np.testing.assert_array_equal(codes.offsets, plain.offsets)
        np.testing.assert_array_equal(codes.is_nucleotide, plain.is_nucleotide)
        assert codes.shape == plain.shape
        np.testing.assert_allclose(codes.codes.toarray(), plain.codes.toarray(), rtol=1e-6, atol=1e-6)
        rows = rng.integers(0, plain.shape[0], 40)
        np.testing.assert_array_equal(codes.at(rows).toarray(), codes.codes.toarray()[rows])
        assert codes.at(rows[:0]).shape == (0, plain.shape[1])
        chosen = [5, 0, 11]
        np.testing.assert_array_equal(codes.columns(chosen).toarray(), codes.codes.toarray()[:, chosen])
        one, other = codes.pooled(), plain.pooled()
        np.testing.assert_allclose(one.mean.toarray(), other.mean.toarray(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(one.maximum.toarray(), other.maximum.toarray(), rtol=1e-6, atol=1e-6)
        a, b = one.sums.table(), other.sums.table()
        assert (a["alive"] == b["alive"]).all()
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_every_way_of_reading_agrees_with_everything_encoded_at_once(tmp_path: Path, kind: Any) -> None:
    plan = CodesPlan(streamed(), toy_saes())
    assert len(plan.works()) > 5
    with use_engine(EngineParameters(kind=kind, workers=3)):
        stored = save_codes(plan, str(tmp_path / "c"))
    assert_same(stored, plan.in_memory())


def test_codes_of_stored_activations_are_those_of_the_second_pass(tmp_path: Path) -> None:
    """The keys are the same too: whether the activations were stored changes no shard."""
    save_version(str(tmp_path / "a"), "v", toy_plan(toy_table()))
    kept = ActivationsDataset(filepath=str(tmp_path / "a"), version=Version(None, None)).load()
    one = save_codes(CodesPlan(kept, toy_saes()), str(tmp_path / "c"))
    other = save_codes(CodesPlan(streamed(), toy_saes()), str(tmp_path / "d"))
    assert one.store.manifest["shards"] == other.store.manifest["shards"]


def test_a_sample_of_the_tokens_is_no_corpus() -> None:
    with pytest.raises(DataError, match="a sample of the tokens"):
        CodesPlan(streamed(tokens_per_sequence=3), toy_saes())


def test_a_rerun_makes_only_what_is_missing(tmp_path: Path) -> None:
    log, root = tmp_path / "log", tmp_path / "c"
    plan = CodesPlan(streamed(log=log), toy_saes())
    first = save_codes(plan, str(root), f"{root}/v1")
    n = len(log.read_text().splitlines())
    assert n == len(plan.works()), "the model runs once for all sites"
    gone = root / first.store.entries[2]["file"]
    gone.unlink()
    again = save_codes(plan, str(root), f"{root}/v2")
    assert len(log.read_text().splitlines()) == n + 1
    assert again.store.manifest["shards"] == first.store.manifest["shards"]
    other = save_codes(CodesPlan(streamed(log=log), toy_saes(seed=9)), str(root), f"{root}/v3")
    assert not {e["key"] for e in other.store.entries} & {e["key"] for e in first.store.entries}


def test_the_store_is_looked_after_as_that_of_activations(tmp_path: Path) -> None:
    root = tmp_path / "c"
    codes = save_codes(CodesPlan(streamed(), toy_saes()), str(root), f"{root}/v1/c")
    assert [version.version for version in list_versions(str(root))] == ["v1"]
    assert [problem for problem in verify_store(str(root)) if problem] == []
    assert find_garbage(str(root), 0) == {}
    damaged = root / codes.store.entries[0]["file"]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    (problem,) = [problem for problem in verify_store(str(root)) if problem]
    assert "has changed" in problem.what
    with pytest.raises(StoreError, match="content has changed"):
        open_codes(str(root), f"{root}/v1/c")[SITES[0]].codes  # noqa: B018 - reading is the point


def test_the_dataset_and_its_preview(tmp_path: Path) -> None:
    plan = CodesPlan(streamed(), toy_saes())
    TokenCodesDataset(filepath=str(tmp_path / "c"), version=Version(None, "v1")).save(plan)
    dataset = TokenCodesDataset(filepath=str(tmp_path / "c"), version=Version(None, None))
    assert_same(dataset.load(), plan.in_memory())
    assert '"n_sequences": 30' in str(dataset.preview())


def test_what_is_not_finite_is_named(tmp_path: Path) -> None:
    saes = {SITES[0]: toy_saes()[SITES[0]]}
    bad = toy_plan(toy_table(3), sites=SITES[:1])
    broken = type(bad)(**{**bad.__dict__, "compute": nothing_finite})
    with pytest.raises(DataError, match=r"layers.0.mixer are not finite"):
        save_codes(CodesPlan(stream_activations(broken), saes), str(tmp_path))
    assert not list(tmp_path.rglob("manifest.json"))


def nothing_finite(tokens: Any) -> dict[str, np.ndarray]:
    return {SITES[0]: np.full((sum(t.ids.size for t in tokens), WIDTH), np.nan, dtype=np.float32)}


def test_nucleotides_of_tokens() -> None:
    plan = toy_plan(toy_table())
    rows = stream_activations(plan).all_rows()
    offsets = stream_activations(plan).offsets
    np.testing.assert_array_equal(nucleotide_of_tokens(rows.is_nucleotide, offsets), rows.nucleotide)


PEAK = """
import resource, sys
sys.path[:0] = {path!r}
import numpy as np
from activation_toys import toy_plan, toy_table
from test_codes_store import toy_saes
from helix_sae.activations import stream_activations
from helix_sae.codes import CodesPlan, save_codes
from helix_sae.shards import store

store._MAPPED_BYTES = 1 << 20  # pages of open files count as memory, though the system may take them back
save_codes(CodesPlan(stream_activations(toy_plan(toy_table(200), shard_tokens=2000)), toy_saes()), {root!r} + "/warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = toy_table({n}, longest=4000)
plan = CodesPlan(stream_activations(toy_plan(table, shard_tokens=200_000)), toy_saes())
codes = save_codes(plan, {root!r} + "/c")
for site in codes:
    codes[site].pooled()
    codes[site].columns([1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, codes[site].shape[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """What more sequences add to the peak, in processes of their own: no more than what is asked for of each token.

    That is a flag and the entries of one column; activations alone are 40 bytes a token here, codes 24.
    """
    found: dict[int, tuple[int, int]] = {}
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "activations")]
    for n in (400, 1600):
        code = PEAK.format(path=path, n=n, root=str(tmp_path / str(n)))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        kilobytes, tokens = map(int, done.stdout.split())
        found[n] = (1024 * kilobytes, tokens)
    (fewer, few), (more, many) = found.values()
    assert many > 3.5 * few
    assert more - fewer < 12 * (many - few), found
