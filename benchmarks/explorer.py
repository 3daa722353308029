"""How soon the explorer answers, and what it bears: one JSON line a case.

    python benchmarks/explorer.py                  # helix_mini as shipped, through a server on this machine
    python benchmarks/explorer.py --load 60        # also 50 clients for 60 seconds

Cases: ``read`` (a sequence of 200 nt: every site and feature, concepts, read-outs; the twelve strongest features drawn, or
all), ``saturation`` (every substitution of 100 nt, on the read-outs and a feature), ``intervene`` (a feature set to zero in
200 nt, with 200 random directions and 20 features beside it) and ``contrast`` (10 against 10 sequences of 100 nt, every
division counted). Times are wall clock of the whole request, with the processor time that it takes the server. ``load``: clients that each ask for other sequences as soon as they
have an answer, which is compared with the library's; the server's memory before, at the end, and after a second round.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from helix_sae.commands.serve import open_shipped, serve_at
from helix_sae.explorer import Session, make_record, strongest
from helix_sae.explorer.limits import Limits

CLIENTS = 50
REPEATS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--load", type=float, default=0.0, metavar="SECONDS", help="length of each round; 0: none"
    )
    arguments = parser.parse_args()
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    port = here.recv()
    session = open_shipped().session
    rng = np.random.default_rng(0)
    pid = int(server.pid or 0)
    for case, path, question, wanted in questions(session, rng):
        report_times(case, port, pid, path, question, wanted)
    if arguments.load:
        report_load(session, port, pid, arguments.load, rng)
    server.terminate()


def serve(connection: Any) -> None:
    """The server's process."""

    def say(line: str) -> None:
        if "Open http" in line:
            connection.send(int(line.rpartition(":")[2].strip("/")))

    serve_at(open_shipped(), "127.0.0.1", 0, say, Limits(per_minute=1e9, burst=10**9))


def questions(session: Session, rng: np.random.Generator) -> list[tuple[str, str, Any, float | None]]:
    two_hundred, hundred = letters(rng, 200), letters(rng, 100)
    at_two, at_one = {"sequence": two_hundred, "cds_start": 100}, {"sequence": hundred, "cds_start": 50}
    feature = strongest(session, session.read(make_record(two_hundred, cds_start=100)), 1)[0].feature.name
    sets = [[{"sequence": letters(rng, 100)} for _ in range(10)] for _ in range(2)]
    return [
        ("read, 12 features drawn", "/api/read", {"sequence": at_two}, 0.1),
        ("read, all features drawn", "/api/read", {"sequence": at_two, "strongest": 512}, 0.1),
        ("saturation", "/api/saturation", {"sequence": at_one, "feature": feature}, 2.0),
        ("intervene", "/api/intervene", {"sequence": at_two, "feature": feature}, None),
        ("contrast", "/api/contrast", {"here": sets[0], "there": sets[1]}, None),
    ]


def letters(rng: np.random.Generator, n: int) -> str:
    return "".join(rng.choice(list("ACGU"), n))


def ask(connection: http.client.HTTPConnection, path: str, question: Any) -> Any:
    connection.request("POST", path, json.dumps(question), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body[:300]!r}")
    return json.loads(body)


def report_times(case: str, port: int, pid: int, path: str, question: Any, wanted: float | None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    ask(connection, path, question)  # compiles and fills caches
    times: list[float] = []
    worked = processor_s(pid)
    for _ in range(REPEATS):
        begin = time.perf_counter()
        ask(connection, path, question)
        times.append(time.perf_counter() - begin)
    worked = (processor_s(pid) - worked) / REPEATS
    report(
        case,
        median_s=statistics.median(times),
        fastest_s=min(times),
        slowest_s=max(times),
        processor_s=worked,
        wanted_s=wanted,
    )


def report_load(session: Session, port: int, pid: int, seconds: float, rng: np.random.Generator) -> None:
    records = [make_record(letters(rng, 50 + i), cds_start=20) for i in range(64)]
    expected = [session.values(session.read(one)) for one in records]
    memory = [resident_mb(pid)]
    for _ in range(2):
        times: list[float] = []
        wrong: list[float] = []
        threads = [
            threading.Thread(target=client, args=(port, i, seconds, records, expected, times, wrong))
            for i in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory.append(resident_mb(pid))
        report(
            "load",
            clients=CLIENTS,
            seconds=seconds,
            requests=len(times),
            largest_difference=max(wrong),
            median_s=statistics.median(times),
            p95_s=float(np.quantile(times, 0.95)),
            memory_before_mb=memory[-2],
            memory_after_mb=memory[-1],
        )


def client(
    port: int,
    number: int,
    seconds: float,
    records: list[Any],
    expected: list[dict[str, float]],
    times: list[float],
    wrong: list[float],
) -> None:
    """Ask, compare, ask again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    end, i = time.monotonic() + seconds, number
    while time.monotonic() < end:
        i = (i + 7) % len(records)
        sent = {"sequence": records[i].sequence, "cds_start": records[i].cds_start}
        begin = time.perf_counter()
        answer = ask(connection, "/api/read", {"sequence": sent})
        times.append(time.perf_counter() - begin)
        wrong.append(max(abs(one["value"] - expected[i][one["name"]]) for one in answer["read_outs"]))


def processor_s(pid: int) -> float:
    """Processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000


def report(case: str, **values: Any) -> None:
    shown = {name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()}
    print(json.dumps({"case": case, **shown}), flush=True)


if __name__ == "__main__":
    main()
