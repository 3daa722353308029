"""The store of activations: what is read is what was computed, or an error that names the file."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from activation_toys import (
    SITES,
    WIDTH,
    files_of,
    save_version,
    toy_activations,
    toy_compute,
    toy_plan,
    toy_table,
)
from kedro.io.core import DatasetError, Version
from safetensors.numpy import load_file

from helix_sae.activations import Activations, stream_activations, writing
from helix_sae.activations.plan import count_tokens, plan_extraction
from helix_sae.activations.shards import draw_tokens
from helix_sae.datasets.activations import ActivationsDataset
from helix_sae.errors import ConfigurationError, DataError, StoreError, UnknownSiteError
from helix_sae.mrna.tokens import tokenize_table
from helix_sae.storage import open_filesystem

Place = tuple[str, dict[str, Any]]


def dataset_at(
    place: Place, load: str | None = None, save: str | None = None, **options: Any
) -> ActivationsDataset:
    return ActivationsDataset(filepath=place[0], version=Version(load, save), fs_args=place[1], **options)


def stored(tmp_path: Path, table: pd.DataFrame | None = None, **options: Any) -> Activations:
    """Save the toy plan in a local store of its own, and open it."""
    root = tmp_path / f"store{len(list(tmp_path.iterdir()))}" / "activations"
    save_version(str(root), "v1", toy_plan(toy_table() if table is None else table, **options))
    return dataset_at((str(root), {})).load()


def computed_lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_what_is_read_is_what_was_computed(store_place: Place) -> None:
    table = toy_table()
    dataset = dataset_at(store_place, save="v1")
    assert not dataset.exists()
    dataset.save(stream_activations(toy_plan(table)))
    assert dataset.exists()
    store = dataset_at(store_place).load()
    tokens = tokenize_table(table)
    assert store.sequence_ids == table["sequence_id"].tolist()
    assert store.sites == SITES
    assert store.widths == dict.fromkeys(SITES, WIDTH)
    assert store.offsets.tolist() == np.cumsum([0, *(t.ids.size for t in tokens)]).tolist()
    assert store.n_tokens == store.offsets[-1] == store.source.manifest["n_tokens"]
    for name, token in list(zip(store.sequence_ids, tokens, strict=True))[::-1]:
        for site in SITES:
            np.testing.assert_array_equal(store.get(name, site), toy_activations([token], site, "m"))
        rows = store.rows(name)
        np.testing.assert_array_equal(rows.token, np.arange(token.ids.size))
        np.testing.assert_array_equal(rows.nucleotide, token.nucleotide)
        np.testing.assert_array_equal(rows.is_nucleotide, token.is_nucleotide)


def test_going_through_the_store_in_order(store_place: Place) -> None:
    table = toy_table()
    dataset_at(store_place, save="v1").save(stream_activations(toy_plan(table)))
    store = dataset_at(store_place).load()
    shards = list(store.parts(SITES))
    assert len(shards) > 3
    assert [name for shard in shards for name in shard.sequence_ids] == store.sequence_ids
    for site in SITES:
        whole = np.concatenate([shard.activations[site] for shard in shards])
        np.testing.assert_array_equal(whole, toy_activations(tokenize_table(table), site, "m"))
    np.testing.assert_array_equal(
        np.concatenate([shard.rows.nucleotide for shard in shards]), store.all_rows().nucleotide
    )
    assert [int(s.offsets[-1]) for s in shards] == [len(s.rows.token) for s in shards]


def test_a_rerun_computes_only_what_is_missing(tmp_path: Path, store_place: Place) -> None:
    log, table = tmp_path / "log", toy_table(40)

    def save(version: str, rows: int, **options: Any) -> int:
        """Shards that were computed."""
        before = len(computed_lines(log))
        dataset_at(store_place, save=version).save(
            stream_activations(toy_plan(table.iloc[:rows], log=log, **options))
        )
        return len(computed_lines(log)) - before

    first = save("v1", 20)
    assert first == len(toy_plan(table.iloc[:20]).shards)
    assert save("v2", 20) == 0
    assert save("v3", 20, sites=SITES[::-1]) == 0
    assert dataset_at(store_place).load().sites == SITES[::-1]
    # Appended sequences change the last shard, at most, and add some.
    appended = save("v4", 40)
    assert 0 < appended <= len(toy_plan(table).shards) - first + 1
    fs, root = open_filesystem(*store_place)
    assert len(fs.find(f"{root}/shards")) == first + appended


def test_one_line_at_the_end_says_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(writing._log, "info", lambda text, *values: lines.append(text % values))
    root, plan = tmp_path / "a", toy_plan(toy_table(20))
    save_version(str(root), "v1", plan)
    shards = shard_files(root)
    shards[0].unlink()
    save_version(str(root), "v2", toy_plan(toy_table(20), tokens_per_sequence=None))
    tokens = sum(spec.n_tokens for spec in plan.shards)
    n_bytes = sum(path.stat().st_size for path in shard_files(root))
    assert len(lines) == 2
    for line, (computed, reused) in zip(lines, [(len(shards), 0), (1, len(shards) - 1)], strict=True):
        assert re.fullmatch(
            f"Activations: 20 sequences, {tokens:,} tokens stored of {tokens:,}; {computed} shards computed, "
            rf"{reused} reused; {n_bytes:,} bytes; \d+\.\d s\.",
            line,
        )


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"dtype": "float16"}, {"tokens_per_sequence": 3}, {"precision": "bfloat16"}],
)
def test_what_changes_the_content_is_never_mixed_in(tmp_path: Path, change: dict[str, Any]) -> None:
    root, log = str(tmp_path / "a"), tmp_path / "log"
    save_version(root, "v1", toy_plan(toy_table(), log=log))
    n = len(computed_lines(log))
    save_version(root, "v2", toy_plan(toy_table(), log=log, **change))
    assert len(computed_lines(log)) == 2 * n
    store = dataset_at((root, {}), load="v1").load()
    np.testing.assert_array_equal(
        np.concatenate([store.get(name, SITES[0]) for name in store.sequence_ids]),
        toy_activations(tokenize_table(toy_table()), SITES[0], "m"),
    )


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    save_version(str(tmp_path / "a"), "v1", toy_plan(toy_table(3), shard_tokens=10_000))
    (path,) = (tmp_path / "a" / "shards").rglob("*.safetensors")
    tensors = load_file(path)
    tokens = tokenize_table(toy_table(3))
    np.testing.assert_array_equal(tensors[f"site:{SITES[1]}"], toy_activations(tokens, SITES[1], "m"))
    assert tensors["offsets"].tolist() == np.cumsum([0, *(t.ids.size for t in tokens)]).tolist()


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_lower_precision_and_the_error_that_it_states(tmp_path: Path, dtype: str, bits: int) -> None:
    import torch

    store = stored(tmp_path, dtype=dtype)
    exact = toy_activations(tokenize_table(toy_table()), SITES[0], "m")
    got = np.concatenate([store.get(name, SITES[0]) for name in store.sequence_ids])
    torch_dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    np.testing.assert_array_equal(got, torch.tensor(exact).to(torch_dtype).float().numpy())
    error = store.source.manifest["storage_error"][SITES[0]]
    assert error["max_abs"] == pytest.approx(float(np.abs(got - exact).max()), rel=1e-6)
    assert error["relative_rms"] == pytest.approx(
        float(np.linalg.norm((got - exact).astype(np.float64)) / np.linalg.norm(exact.astype(np.float64))),
        rel=1e-6,
    )
    assert 0 < error["relative_rms"] < 2.0**-bits
    assert set(next(iter(store.batches([SITES[0]], 8, 0)))) == {SITES[0]}


def test_values_beyond_float16_and_values_that_are_not_finite(tmp_path: Path) -> None:
    def large(tokens: Any) -> dict[str, np.ndarray]:
        return {site: 1e6 * rows for site, rows in toy_compute(tokens).items()}

    def broken(tokens: Any) -> dict[str, np.ndarray]:
        return {site: rows / 0 for site, rows in toy_compute(tokens).items()}

    options = {"fingerprint": "f", "sites": SITES, "dtype": "float16"}
    with pytest.raises(DatasetError, match=r"do not fit float16; use bfloat16"):
        save_version(str(tmp_path / "a"), "v", plan_extraction(toy_table(), compute=large, **options))
    with pytest.raises(DatasetError, match="not finite"), np.errstate(all="ignore"):
        save_version(str(tmp_path / "b"), "v", plan_extraction(toy_table(), compute=broken, **options))


def test_drawn_tokens_depend_on_the_sequence_alone(tmp_path: Path) -> None:
    table = toy_table(20)
    store = stored(tmp_path, table, tokens_per_sequence=4)
    bigger = stored(
        tmp_path, pd.concat([toy_table(7, seed=5), table]), tokens_per_sequence=4, shard_tokens=77
    )
    whole = stored(tmp_path, table)
    for name in store.sequence_ids:
        drawn = store.rows(name).token
        assert len(drawn) == min(4, len(whole.rows(name).token))
        assert (np.diff(drawn) > 0).all()
        np.testing.assert_array_equal(drawn, bigger.rows(name).token)
        for site in SITES:
            np.testing.assert_array_equal(store.get(name, site), whole.get(name, site)[drawn])
            np.testing.assert_array_equal(store.get(name, site), bigger.get(name, site))
        np.testing.assert_array_equal(store.rows(name).nucleotide, whole.rows(name).nucleotide[drawn])
    counts = np.bincount(np.concatenate([draw_tokens(f"s{i}", 10, 3) for i in range(3_000)]))
    assert counts.min() > 800
    assert counts.max() < 1_000


def rows_of(batches: Any, site: str) -> np.ndarray:
    return np.concatenate([batch[site] for batch in batches])


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("buffer_rows", [1, 70, 100_000])
def test_batches_give_each_token_once_an_epoch_and_sites_stay_aligned(
    tmp_path: Path, buffer_rows: int
) -> None:
    store = stored(tmp_path)
    batches = store.batches(SITES, 16, seed=3, epochs=2, buffer_rows=buffer_rows)
    taken = list(batches)
    assert len(taken) == len(batches) == 2 * -(-store.n_tokens // 16)
    assert {len(batch[SITES[0]]) for batch in taken[:-1]} <= {16, store.n_tokens % 16}
    epochs = rows_of(taken, SITES[0])
    exact = {site: toy_activations(tokenize_table(toy_table()), site, "m") for site in SITES}
    for epoch in (epochs[: store.n_tokens], epochs[store.n_tokens :]):
        np.testing.assert_array_equal(sorted_rows(epoch), sorted_rows(exact[SITES[0]]))
    assert not np.array_equal(epochs[: store.n_tokens], epochs[store.n_tokens :])
    both = np.concatenate([epochs, rows_of(taken, SITES[1])], axis=1)[: store.n_tokens]
    np.testing.assert_array_equal(
        sorted_rows(both), sorted_rows(np.concatenate(list(exact.values()), axis=1))
    )


def test_the_stream_depends_on_the_seed_and_not_on_the_shards(tmp_path: Path) -> None:
    stores = [stored(tmp_path, shard_tokens=n) for n in (1, 90, 100_000)]
    assert len({len(store.source.manifest["shards"]) for store in stores}) == 3
    chosen = stores[0].sequence_ids[3:25:2]
    for ids in (None, chosen):
        streams = [list(s.batches(SITES, 7, seed=1, sequence_ids=ids, buffer_rows=128)) for s in stores]
        for stream in streams[1:]:
            for a, b in zip(streams[0], stream, strict=True):
                for site in SITES:
                    np.testing.assert_array_equal(a[site], b[site])
    again = stores[0].batches(SITES, 7, seed=1, buffer_rows=128)
    np.testing.assert_array_equal(rows_of(again, SITES[0]), rows_of(again, SITES[0]))
    assert not np.array_equal(rows_of(again, SITES[0]), rows_of(stores[0].batches(SITES, 7, 2), SITES[0]))
    exact = np.concatenate([stores[0].get(name, SITES[0]) for name in chosen])
    subset = stores[1].batches(SITES, 7, seed=0, sequence_ids=chosen[::-1])
    np.testing.assert_array_equal(sorted_rows(rows_of(subset, SITES[0])), sorted_rows(exact))
    assert subset.n_tokens == len(exact) == stores[0].n_tokens_of(chosen)


def test_the_stream_is_the_same_on_every_file_system(tmp_path: Path, store_place: Place) -> None:
    options = {"dtype": "bfloat16", "tokens_per_sequence": 9}
    dataset_at(store_place, save="v1").save(
        stream_activations(toy_plan(toy_table(), shard_tokens=90, **options))
    )
    store, local = dataset_at(store_place).load(), stored(tmp_path, shard_tokens=500, **options)
    drawn = [list(s.batches(SITES, 7, seed=1, epochs=2, buffer_rows=64)) for s in (store, local)]
    for a, b in zip(*drawn, strict=True):
        for site in SITES:
            np.testing.assert_array_equal(a[site], b[site])


def test_batches_are_mixed_over_the_corpus(tmp_path: Path) -> None:
    store = stored(tmp_path, toy_table(400, longest=40), shard_tokens=500)
    rows = np.concatenate([store.get(name, SITES[0]) for name in store.sequence_ids])
    position = {row.tobytes(): i for i, row in enumerate(rows)}
    drawn = [
        position[row.tobytes()]
        for row in rows_of(store.batches([SITES[0]], 64, 0, buffer_rows=1_024), SITES[0])
    ]
    spread = [np.std(drawn[i : i + 64]) / len(rows) for i in range(0, len(drawn) - 64, 64)]
    assert np.median(spread) > 0.2  # of rows drawn anywhere: 0.29


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    store = stored(tmp_path)
    with pytest.raises(
        UnknownSiteError, match=r"\['layers\.9'\]; there are \['layers\.0\.mixer', 'layers\.2'\]"
    ):
        store.get("s0_0", "layers.9")
    with pytest.raises(DataError, match="1 of 1 sequences have no activations"):
        store.get("absent", SITES[0])
    for options in ({"batch_size": 0}, {"epochs": 0}, {"buffer_rows": 0}):
        with pytest.raises(ConfigurationError, match="at least 1"):
            store.batches(SITES, **{"batch_size": 4, "seed": 0, **options})
    with pytest.raises(DataError, match="No sequence was chosen"):
        store.batches(SITES, 4, 0, sequence_ids=[])
    with pytest.raises(DataError, match="chosen twice"):
        store.batches(SITES, 4, 0, sequence_ids=["s0_0", "s0_1", "s0_0"])
    with pytest.raises(StoreError, match="are of the model fingerprint of m, not of other"):
        store.check_model("other")
    store.check_model("fingerprint of m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "'float64' is not one of"),
        ({"shard_tokens": 0}, "at least 1"),
        ({"tokens_per_sequence": 0}, "at least 1"),
        ({"sites": ()}, "at least one site"),
        ({"sites": ("a", "a")}, "each once"),
    ],
)
def test_plans_that_cannot_be_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        toy_plan(toy_table(), **options)
    with pytest.raises(DataError, match="empty"):
        toy_plan(toy_table().iloc[:0])
    with pytest.raises(DataError, match="more than once"):
        toy_plan(pd.concat([toy_table(2), toy_table(2)]))


def test_tokens_are_counted_as_the_tokenizer_makes_them() -> None:
    for length in range(1, 9):
        for start in (None, *range(length + 1)):
            ends = (None,) if start is None else (None, *range(start + 3, length + 1, 3))
            for end in ends:
                for markers in ("cds", "none"):
                    row = {"sequence": ["A" * length], "cds_start": [start], "cds_end": [end]}
                    (tokens,) = tokenize_table(pd.DataFrame(row, dtype=object), markers)
                    assert count_tokens(length, start, end, markers) == tokens.ids.size


def shard_files(root: Path) -> list[Path]:
    return sorted((root / "shards").rglob("*.safetensors"))


def read_everything(store: Activations) -> None:
    for name in store.sequence_ids:
        store.get(name, SITES[0])


DAMAGE = {
    "flipped": (lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], "content has changed"),
    "truncated": (lambda data: data[:-8], "bytes where the manifest says"),
    "emptied": (lambda _: b"", "the shard has 0 bytes where the manifest says"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_shards_are_named_and_healed_by_a_rerun(
    tmp_path: Path, store_place: Place, kind: str
) -> None:
    log = tmp_path / "log"
    dataset_at(store_place, save="v1").save(stream_activations(toy_plan(toy_table(), log=log)))
    fs, root = open_filesystem(*store_place)
    victim = sorted(fs.find(f"{root}/shards"))[1]
    good = fs.cat_file(victim)
    damage, message = DAMAGE[kind]
    fs.pipe_file(victim, damage(good))
    with pytest.raises(StoreError, match=f"{victim.rsplit('/', 1)[1]}.*{message}"):
        read_everything(dataset_at(store_place).load())
    if kind == "flipped":
        read_everything(dataset_at(store_place, verify="size").load())
        fs.rm_file(victim)
    n = len(computed_lines(log))
    dataset_at(store_place, save="v2").save(stream_activations(toy_plan(toy_table(), log=log)))
    assert len(computed_lines(log)) == n + 1
    assert fs.cat_file(victim) == good
    read_everything(dataset_at(store_place, load="v1").load())


def test_a_missing_shard_is_named(store_place: Place) -> None:
    dataset_at(store_place, save="v1").save(stream_activations(toy_plan(toy_table())))
    fs, root = open_filesystem(*store_place)
    victim = sorted(fs.find(f"{root}/shards"))[0]
    fs.rm_file(victim)
    with pytest.raises(StoreError, match=f"{victim.rsplit('/', 1)[1]}: the file is missing"):
        read_everything(dataset_at(store_place).load())


def test_manifests_that_are_damaged_or_of_another_model(tmp_path: Path) -> None:
    root = tmp_path / "a"
    save_version(str(root), "v1", toy_plan(toy_table()))
    path = root / "v1" / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    dataset = dataset_at((str(root), {}))
    path.write_text(json.dumps({**manifest, "n_tokens_computed": 1}))
    with pytest.raises(DatasetError, match="its content is not that of its SHA-256"):
        dataset.load()
    del manifest["sha256"]  # as of earlier releases
    for change, message in (
        ({"fingerprint": "another"}, "the shard is of the model fingerprint of m, the manifest of another"),
        ({"format": "helix-sae-activations/9"}, "format 'helix-sae-activations/9'"),
        ({"index": {**manifest["index"], "sha256": "0"}}, "index is damaged"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises((StoreError, DatasetError), match=message):
            read_everything(dataset.load())
    path.write_text("{")
    with pytest.raises(DatasetError, match=r"manifest\.json: the manifest is damaged"):
        dataset.load()


def test_a_version_without_manifest_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "a"
    save_version(str(root), "v1", toy_plan(toy_table()))
    (root / "v2" / "a").mkdir(parents=True)
    (root / "v2" / "a" / "index.parquet").touch()
    dataset = dataset_at((str(root), {}))
    assert dataset.list_versions(full_path=False) == ["v1"]
    assert dataset.resolve_load_version() == "v1"
    (root / "v1" / "a" / "manifest.json").unlink()
    assert not dataset_at((str(root), {})).exists()


def test_versions(store_place: Place) -> None:
    for version, model in (("v1", "m"), ("v2", "other")):
        dataset_at(store_place, save=version).save(stream_activations(toy_plan(toy_table(), model=model)))
    assert dataset_at(store_place).load().fingerprint == "fingerprint of other"
    assert dataset_at(store_place, load="v1").load().fingerprint == "fingerprint of m"
    with pytest.raises(DatasetError, match="must not exist"):
        dataset_at(store_place, save="v1").save(stream_activations(toy_plan(toy_table())))


def test_without_versions_a_save_replaces(tmp_path: Path) -> None:
    dataset = ActivationsDataset(filepath=str(tmp_path / "a"))
    dataset.save(stream_activations(toy_plan(toy_table(5))))
    dataset.save(stream_activations(toy_plan(toy_table(9))))
    assert len(dataset.load()) == 9


def test_the_same_plan_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_version(str(tmp_path / name / "a"), "v", toy_plan(toy_table()))
    assert files_of(tmp_path / "x") == files_of(tmp_path / "y")


def test_nothing_temporary_stays_and_the_preview_is_the_manifest(tmp_path: Path) -> None:
    save_version(str(tmp_path / "a"), "v", toy_plan(toy_table()))
    assert not [name for name in files_of(tmp_path) if ".tmp" in name]
    preview = json.loads(dataset_at((str(tmp_path / "a"), {})).preview())
    assert preview["n_sequences"] == 30
    assert "shards" not in preview


def test_few_shards_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helix_sae.shards.store._OPEN_SHARDS", 2)
    store = stored(tmp_path, shard_tokens=50)
    assert len(store.source.manifest["shards"]) > 10
    exact = toy_activations(tokenize_table(toy_table()), SITES[0], "m")
    got = rows_of(store.batches([SITES[0]], 10, 0), SITES[0])
    np.testing.assert_array_equal(sorted_rows(got), sorted_rows(exact))
    assert len(store.source._opened) == 2


def test_reading_memory_maps(tmp_path: Path) -> None:
    rows = stored(tmp_path).get("s0_3", SITES[0])
    assert not rows.flags.writeable
    assert not rows.flags.owndata


def test_memory_file_system_holds_the_same_layout(tmp_path: Path) -> None:
    save_version(str(tmp_path / "a"), "v", toy_plan(toy_table()))
    save_version("memory://layout/a", "v", toy_plan(toy_table()))
    fs = fsspec.filesystem("memory")
    found = {path.removeprefix("/layout/a/"): fs.cat_file(path) for path in fs.find("/layout/a")}
    assert found == files_of(tmp_path / "a")


def test_parts_of_a_remote_store_leave_no_copies_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker goes through all shards of a corpus, and its disk need not hold them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    plan = toy_plan(toy_table(), shard_tokens=200)
    save_version("memory://parts/a", "v", plan)
    stored = ActivationsDataset(filepath="memory://parts/a", version=Version("v", None)).load()
    works = stored.works()
    assert len(works) > 3
    for work, computed in zip(works, stream_activations(plan).works(), strict=True):
        part, exact = work(SITES), computed(SITES)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        for site in SITES:
            np.testing.assert_array_equal(part.activations[site], exact.activations[site])
