"""The whole road on `--env cluster`: raw files, artefacts and report in a bucket, the work on Dask workers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kedro_runs import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

URL = "s3://store/cluster"


class Cluster(NamedTuple):
    """A project of its own, whose `cluster` environment reaches S3 and a Dask scheduler on this machine."""

    project: Path
    scratch: Path
    address: str
    variables: dict[str, str]
    storage_options: dict[str, Any]

    def kedro(self, *arguments: str) -> str:
        """What ``kedro ARGUMENTS --env cluster`` prints; it has to succeed."""
        command = [str(Path(sys.executable).with_name("kedro")), *arguments, "--env", "cluster"]
        done = subprocess.run(
            command, cwd=self.project, env=self.variables, capture_output=True, text=True, timeout=600, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout + done.stderr


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters with those of the other on top."""
    both = {k: merged(one[k], v) if isinstance(v, Mapping) and k in one else v for k, v in other.items()}
    return {**one, **both}


def small_project(source: Path, target: Path) -> None:
    """The project with helix_mini in place of the released model, and as little work as `test` has."""
    shutil.copytree(source / "conf", target / "conf")
    shutil.copy(source / "pyproject.toml", target)
    (target / "src").mkdir()  # the package is imported from where it is installed
    conf = target / "conf" / "cluster"
    named = yaml.safe_load((conf / "globals.yml").read_text(encoding="utf-8"))
    named["model"] = {"filepath": f"{source}/data/06_models/helix_mini"}
    (conf / "globals.yml").write_text(yaml.safe_dump(named), encoding="utf-8")
    parameters: dict[str, Any] = {"extraction": {"shard_tokens": 4096}}
    for path in ("test/parameters.yml", "cluster/parameters.yml", "cluster/causal_acdc/parameters.yml"):
        parameters = merged(parameters, yaml.safe_load((target / "conf" / path).read_text(encoding="utf-8")))
    parameters["engine"] |= {"workers": 2, "timeout_s": 60}
    (conf / "causal_acdc" / "parameters.yml").unlink()
    (conf / "parameters.yml").write_text(yaml.safe_dump(parameters), encoding="utf-8")


@pytest.fixture(scope="module")
def cluster(
    project_path: Path, tmp_path_factory: pytest.TempPathFactory, s3_options: dict[str, Any]
) -> Iterator[Cluster]:
    pytest.importorskip("distributed", reason="Dask is not installed (extra cluster)")
    root = tmp_path_factory.mktemp("cluster")
    project, scratch, home = (root / name for name in ("project", "scratch", "home"))
    for folder in (project, scratch, home):
        folder.mkdir()
    small_project(project_path, project)
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    variables = {
        **os.environ,
        **environment(root / "calls"),
        "KEDRO_ENV": "cluster",
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "AWS_ACCESS_KEY_ID": s3_options["key"],
        "AWS_SECRET_ACCESS_KEY": s3_options["secret"],
        "AWS_ENDPOINT_URL": s3_options["client_kwargs"]["endpoint_url"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "HELIX_SAE_DATA_ROOT": URL,
        "HELIX_SAE_RAW_ROOT": f"{URL}/01_raw",
        "HELIX_SAE_SCHEDULER": address,
    }
    dask = [sys.executable, "-m", "dask"]
    log = (root / "dask.log").open("wb")
    quiet: dict[str, Any] = {"env": variables, "cwd": scratch, "stdout": log, "stderr": log}
    # Both end by themselves where this process is killed and cannot end them.
    schedule = f"scheduler --host 127.0.0.1 --port {port} --no-dashboard --idle-timeout 900"
    scheduler = subprocess.Popen([*dask, *schedule.split()], **quiet)
    worker = f"worker {address} --nthreads 1 --no-nanny --no-dashboard --death-timeout 60"
    workers = [subprocess.Popen([*dask, *worker.split()], **quiet) for _ in range(2)]
    yield Cluster(project, scratch, address, variables, s3_options)
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def files_below(*folders: Path) -> set[Path]:
    """Files of these folders, but for the caches of libraries (Python, matplotlib, Kedro-Viz)."""
    found = {path: path.relative_to(folder).parts for folder in folders for path in folder.rglob("*")}
    caches = ("__pycache__", ".")
    return {p for p, parts in found.items() if p.is_file() and not any(n.startswith(caches) for n in parts)}


def test_from_raw_files_to_the_report_on_object_storage(cluster: Cluster) -> None:
    import distributed
    import s3fs

    places = (cluster.project, Path(cluster.variables["HOME"]))
    before = files_below(*places)
    cluster.kedro("run", "--pipelines=simulation")
    fs = s3fs.S3FileSystem(**cluster.storage_options)
    assert fs.glob(f"{URL}/01_raw/demo/mRNA_dataset_chunk_*.json")
    with distributed.Client(cluster.address, set_as_default=False) as client:
        client.get_task_stream()  # from now on
        said = cluster.kedro("run", "--params", f"sequences={URL}/01_raw/demo")
        at_work = {entry["worker"] for entry in client.get_task_stream()}
    assert "Pipeline execution completed" in said
    assert len(at_work) == 2
    assert f"{URL}/latest" in said
    assert {"report.html", "summary.json", "atlas"} <= {Path(path).name for path in fs.ls(f"{URL}/latest")}
    layers = {Path(path).name for path in fs.ls(URL)}
    assert {"03_primary", "04_feature", "06_models", "07_model_output", "08_reporting"} <= layers
    # Scratch apart, nothing was written on this machine; of ours, scratch holds the state of the training.
    assert sorted(files_below(*places) - before) == []
    left = {path.relative_to(cluster.scratch).parts[0] for path in files_below(cluster.scratch)}
    ours = {name for name in left if name.startswith("helix-sae")}
    assert {name for name in ours if not name.startswith("helix-sae-training")} == set()


def test_a_scheduler_without_workers_is_an_error_that_names_it(cluster: Cluster) -> None:
    """Kept apart from the road: no node of it begins."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{opened.getsockname()[1]}"
    command = [
        str(Path(sys.executable).with_name("kedro")),
        "run",
        "--env",
        "cluster",
        "--pipelines=extraction",
    ]
    done = subprocess.run(
        [*command, "--params", "engine.timeout_s=5"],
        cwd=cluster.project,
        env={**cluster.variables, "HELIX_SAE_SCHEDULER": nobody},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    assert nobody in done.stdout + done.stderr
