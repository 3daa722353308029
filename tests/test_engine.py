"""The engine: every worker gives the same results, and failures come through."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from activation_toys import files_of, save_version, toy_plan, toy_table
from kedro.io import DatasetError
from pydantic import ValidationError

from helix_sae import engine
from helix_sae.engine import EngineError, EngineParameters, current_engine, map_work, set_engine, use_engine
from helix_sae.errors import DataError


def power(base: int, exponent: int) -> int:
    return base**exponent


def fail_at_three(item: int) -> int:
    if item == 3:
        raise DataError("three")
    return item


def process_id(item: int) -> int:
    return os.getpid()


def die(item: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_results_with_their_index(kind: str, workers: int) -> None:
    with use_engine(EngineParameters(kind=kind, workers=workers)):
        assert dict(map_work(partial(power, exponent=2), list(range(20)))) == {i: i * i for i in range(20)}
        assert list(map_work(fail_at_three, [])) == []
    assert current_engine() == EngineParameters()


def test_serial_is_in_order_and_lazy() -> None:
    done: list[int] = []
    results = map_work(done.append, [1, 2, 3])
    next(results)
    assert done == [1]


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_what_is_left_to_do_is_done_with_each_result(kind: str) -> None:
    with use_engine(EngineParameters(kind=kind, workers=2)):
        squares = partial(power, exponent=2)
        assert dict(map_work(squares, list(range(20)), finish=str)) == {i: str(i * i) for i in range(20)}
        with pytest.raises(DataError, match="three"):
            list(map_work(squares, [0, 1], finish=lambda _: fail_at_three(3)))


def test_serial_finishes_beside_the_next_items_and_keeps_little_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine.os, "cpu_count", lambda: 4)
    begun: list[int] = []
    second = threading.Event()

    def begin(item: int) -> int:
        begun.append(item)
        if item == 1:
            second.set()
        return item

    def finish(item: int) -> int:
        assert second.wait(10), "the second item had to wait for the end of the first"
        return item

    results = map_work(begin, list(range(100)), finish=finish)
    assert next(results) == (0, 0)
    assert begun == [0, 1, 2]
    results.close()
    assert len(begun) == 3


def test_threads_run_together_and_keep_little_waiting() -> None:
    barrier = threading.Barrier(2, timeout=10)
    with use_engine(EngineParameters(kind="threads", workers=2)):
        assert sorted(index for index, _ in map_work(lambda item: barrier.wait(), [0, 1])) == [0, 1]
        begun: list[int] = []
        results = map_work(begun.append, list(range(100)))
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 8


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_what_the_work_raises_comes_through(kind: str) -> None:
    with use_engine(EngineParameters(kind=kind, workers=2)), pytest.raises(DataError, match="three"):
        list(map_work(fail_at_three, list(range(50))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "dask"},
        {"kind": "dask", "address": "tcp://x:1", "slurm": {}},
        {"kind": "threads", "address": "tcp://x:1"},
        {"workers": 0},
        {"kind": "magic"},
        {"queue": "x"},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EngineParameters.model_validate(wrong)


def test_setting_returns_the_one_before() -> None:
    before = set_engine(EngineParameters(kind="threads", workers=2))
    assert set_engine(before).kind == "threads"


@pytest.fixture(scope="module")
def on_dask() -> Iterator[EngineParameters]:
    """A Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra cluster)")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        parameters = EngineParameters(kind="dask", address=address, workers=2, timeout_s=60)
        yield parameters
        engine._dask_client(parameters.model_dump_json())[0].close()
        engine._dask_client.cache_clear()


@pytest.mark.slow
def test_a_cluster_gives_the_same_results_elsewhere(on_dask: EngineParameters) -> None:
    with use_engine(on_dask):
        assert dict(map_work(partial(power, exponent=3), list(range(12)))) == {i: i**3 for i in range(12)}
        assert os.getpid() not in {result for _, result in map_work(process_id, list(range(4)))}
        with pytest.raises(DataError, match="three"):
            list(map_work(fail_at_three, list(range(8))))


@pytest.mark.slow
def test_work_that_kills_its_worker_is_an_error_and_does_not_hang(on_dask: EngineParameters) -> None:
    with use_engine(on_dask), pytest.raises(EngineError, match="died more than once"):
        list(map_work(die, [0]))


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing_but_time(on_dask: EngineParameters, tmp_path: Path) -> None:
    plan = toy_plan(toy_table(60), seconds=0.1)
    save_version(str(tmp_path / "alone" / "a"), "v", toy_plan(toy_table(60)))
    client = engine._dask_client(on_dask.model_dump_json())[0]
    client.wait_for_workers(1, timeout=on_dask.timeout_s)  # on a busy machine one may be on its way back
    (victim, *_) = client.run(os.getpid).values()
    shards = tmp_path / "spread" / "a" / "shards"

    def kill_after_the_first_shard() -> None:
        while not list(shards.rglob("*.safetensors")):
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill_after_the_first_shard, daemon=True)
    killer.start()
    with use_engine(on_dask):
        save_version(str(tmp_path / "spread" / "a"), "v", plan)
    killer.join()
    written = files_of(tmp_path / "spread")
    # What the victim had half-written is left to the next run, which knows that its process is gone.
    assert {name: data for name, data in written.items() if ".tmp-" not in name} == files_of(
        tmp_path / "alone"
    )


def wait_long(item: int) -> None:
    time.sleep(60)


@pytest.mark.slow
def test_no_worker_left_is_an_error_after_a_while(tmp_path: Path) -> None:
    """The last worker is killed, and nobody starts another one."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra cluster)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    address = f"tcp://127.0.0.1:{free_port()}"
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    place = ["--host", "127.0.0.1", "--port", address.rsplit(":", 1)[1]]
    scheduler = subprocess.Popen([*dask, "scheduler", *place, "--no-dashboard"], **quiet)
    worker = subprocess.Popen([*dask, "worker", address, "--no-nanny", "--no-dashboard"], **quiet)
    parameters = EngineParameters(kind="dask", address=address, timeout_s=40)
    client, _ = engine._dask_client(parameters.model_dump_json())
    killer = threading.Timer(1.0, worker.kill)
    try:
        parameters = parameters.model_copy(update={"timeout_s": 4.0})
        engine._dask_client.cache_clear()
        with use_engine(parameters):
            killer.start()
            began = time.monotonic()
            with pytest.raises(EngineError, match=r"has had no worker for \d+ s"):
                list(map_work(wait_long, [0, 1]))
        assert time.monotonic() - began < 30
    finally:
        client.close()
        for process in (worker, scheduler):
            process.kill()
            process.wait()
        engine._dask_client.cache_clear()
    assert distributed


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_an_error_and_what_was_completed_stays(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed (extra cluster)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    address = f"tcp://127.0.0.1:{free_port()}"
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    place = ["--host", "127.0.0.1", "--port", address.rsplit(":", 1)[1]]
    scheduler = subprocess.Popen([*dask, "scheduler", *place, "--no-dashboard"], **quiet)
    worker = subprocess.Popen([*dask, "worker", address, "--nthreads", "1", "--no-dashboard"], **quiet)
    parameters = EngineParameters(kind="dask", address=address, timeout_s=20)
    root, plan = tmp_path / "a", toy_plan(toy_table(60), seconds=0.1)

    def kill_after_the_first_shard() -> None:
        while not list((root / "shards").rglob("*.safetensors")):
            time.sleep(0.01)
        scheduler.kill()

    killer = threading.Thread(target=kill_after_the_first_shard, daemon=True)
    try:
        with use_engine(parameters):
            killer.start()
            with pytest.raises(
                (EngineError, DatasetError), match=r"(?s)scheduler is gone.*What was completed stays"
            ):
                save_version(str(root), "v", plan)
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
        engine._dask_client.cache_clear()
    assert not (root / "v").exists()
    done = len(list((root / "shards").rglob("*.safetensors")))
    assert 0 < done < len(plan.shards)
    log = tmp_path / "log"
    save_version(str(root), "v", toy_plan(toy_table(60), log=log))
    assert len(log.read_text().splitlines()) == len(plan.shards) - done


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def test_a_scheduler_that_is_not_there() -> None:
    pytest.importorskip("distributed", reason="Dask is not installed (extra cluster)")
    parameters = EngineParameters(kind="dask", address="tcp://127.0.0.1:9", timeout_s=1)
    with (
        use_engine(parameters),
        pytest.raises(EngineError, match=r"tcp://127\.0\.0\.1:9 did not give 1 worker"),
    ):
        list(map_work(process_id, [0]))
