"""The API through a real server: the library's answers, clear refusals, and safety."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_toys import UTR, random_record
from served import Server, serving

from helix_sae.explorer import Session, Setting, contrast, edit, intervene, make_record, saturation, strongest
from helix_sae.explorer.answers import of_features
from helix_sae.explorer.limits import Limits, RateLimiter

SEQUENCE = {"sequence": UTR, "cds_start": 24}
RECORD = make_record(UTR, cds_start=24)
HOSTILE = '"><script>alert(1)</script>\u202e../../etc/passwd'


@pytest.fixture(scope="module")
def server(session: Session) -> Iterator[Server]:
    with serving(session, hosts=("127.0.0.1",), limits=Limits(per_minute=1e9, burst=10**9)) as one:
        yield one


def test_answers_are_the_librarys(server: Server, session: Session) -> None:
    reading = session.read(RECORD)
    answer = server.ask("/api/read", {"sequence": SEQUENCE, "features": ["L0.mixer.3"], "strongest": 4}).json
    assert {r["name"]: r["value"] for r in answer["read_outs"]} == pytest.approx(session.values(reading))
    names = [track["name"] for track in answer["tracks"]]
    assert names[0] == "L0.mixer.3"
    assert set(names[1:]) <= {t.feature.name for t in strongest(session, reading, 4)}
    np.testing.assert_allclose(
        answer["tracks"][0]["values"], reading.on_letters("layers.0.mixer")[:, 3], atol=1e-5
    )
    assert answer["concepts"]["start_codon"] == [[24, 27]]

    feature = strongest(session, reading, 1)[0].feature
    found = intervene(session, RECORD, feature, Setting("zero"))
    told = server.ask("/api/intervene", {"sequence": SEQUENCE, "feature": feature.name}).json
    assert {e["name"]: e["after"] for e in told["effects"]} == pytest.approx(found.after)
    first = told["effects"][0]
    assert found.random is not None
    assert first["random"]["p_value"] == found.random.p_value(first["name"], first["after"] - first["before"])

    asked = {"sequence": SEQUENCE, "feature": feature.name, "first": 5, "last": 9}
    mapped = server.ask("/api/saturation", asked).json
    twin = saturation(session, RECORD, feature=feature, first=5, last=9)
    np.testing.assert_allclose(
        mapped["read_outs"]["functional_mrl"], twin.read_outs["functional_mrl"], atol=1e-5
    )
    np.testing.assert_allclose(mapped["feature"], twin.feature, atol=1e-5)

    after = {"sequence": UTR.replace("AUGCC", "AAGCC"), "cds_start": 24}
    changed = server.ask("/api/edit", {"before": SEQUENCE, "after": after}).json
    outcome = edit(session, RECORD, make_record(after["sequence"], cds_start=24))
    assert [m["name"] for m in changed["moved"]] == [m.feature.name for m in outcome.moved]

    rng = np.random.default_rng(1)
    sets = [[random_record(rng, 30 + i) for i in range(4)] for _ in range(2)]
    sent = [[{"sequence": r.sequence, "cds_start": r.cds_start} for r in side] for side in sets]
    rows = server.ask("/api/contrast", {"here": sent[0], "there": sent[1], "most": 3}).json["rows"]
    assert [r["name"] for r in rows] == list(contrast(session, *sets).table["name"][:3])


def test_records_of_the_run_are_found_by_name_and_read_whole(session: Session) -> None:
    table = pd.DataFrame(
        {
            "sequence_id": ["one", HOSTILE, "(other"],
            "sequence": [UTR, "ACGU", "GGG"],
            "cds_start": pd.array([24, None, None], dtype="Int64"),
            "cds_end": pd.array([None, None, None], dtype="Int64"),
            "functional_mrl": [6.5, float("nan"), 1.0],
        }
    )
    with serving(dataclasses.replace(session, table=table)) as one:
        assert one.ask("/api/about").json["n_records"] == 3
        assert one.ask("/api/records").json["names"] == ["one", HOSTILE, "(other"]
        assert one.ask("/api/records?holds=(OTH").json["names"] == ["(other"]
        told = one.ask("/api/record?name=one").json
        assert told["measured"] == {"functional_mrl": 6.5}
        assert (told["record"]["sequence"], told["record"]["cds_start"]) == (UTR, 24)
        hostile = one.ask(f"/api/record?name={urllib.parse.quote(HOSTILE)}").json
        assert (hostile["record"]["name"], hostile["record"]["cds_start"]) == (HOSTILE, None)
        assert hostile["measured"] == {}
        for name in ("../../etc/passwd", "on", ""):
            missing = one.ask(f"/api/record?name={urllib.parse.quote(name)}")
            assert (missing.status, "There is no record" in missing.json["error"]) == (400, True)
    with serving(session) as one:
        assert one.ask("/api/records?holds=o").json["names"] == []
        assert one.ask("/api/record?name=one").status == 400


def test_read_outs_of_many_sequences_are_those_of_each(server: Server, session: Session) -> None:
    rng = np.random.default_rng(3)
    records = [random_record(rng, 30 + i) for i in range(3)]
    sent = [{"sequence": one.sequence, "cds_start": one.cds_start} for one in records]
    told = server.ask("/api/values", {"sequences": sent}).json["values"]
    each = [session.values(session.read(one)) for one in records]
    assert told == {name: pytest.approx([values[name] for values in each]) for name in session.read_outs}
    assert server.ask("/api/values", {"sequences": []}).status == 422
    assert server.ask("/api/values", {"sequences": sent[:1] * 201}).status == 413


def test_only_features_of_the_atlas_have_a_card(session: Session) -> None:
    known = pd.DataFrame({"name": ["L0.mixer.3"]})
    told = of_features(dataclasses.replace(session, about=known)).features
    assert [one.name for one in told if one.card] == ["L0.mixer.3"]


def test_pasted_fasta_keeps_hostile_names_as_text(server: Server) -> None:
    answer = server.ask("/api/paste", {"text": f">{HOSTILE}\nggcATGtaa\n", "start": "find"})
    assert answer.headers["content-type"] == "application/json"
    record = answer.json["records"][0]
    assert record["name"] == HOSTILE.split()[0]
    assert (record["sequence"], record["cds_start"], record["start_from"]) == ("GGCAUGUAA", 3, "found")


@pytest.mark.parametrize(
    ("path", "question", "status", "what"),
    [
        ("/api/read", {"sequence": {"sequence": "ACGX"}}, 400, "letter 'X' at position 3"),
        ("/api/read", {"sequence": {"sequence": "A" * 4001}}, 413, "4,001 nt are too long"),
        ("/api/read", {"sequence": SEQUENCE, "features": [HOSTILE]}, 400, "There is no feature"),
        ("/api/read", {"sequence": SEQUENCE, "path": "/etc/passwd"}, 422, "path: Extra inputs"),
        ("/api/read", {"sequence": {"sequence": UTR, "cds_start": -1}}, 422, "cds_start"),
        ("/api/intervene", {"sequence": SEQUENCE, "feature": "L0.mixer.3", "value": 1e400}, 422, "value"),
        ("/api/intervene", {"sequence": {"sequence": "A" * 1001}, "feature": "L0.mixer.3"}, 413, "intervene"),
        ("/api/saturation", {"sequence": {"sequence": "A" * 400}}, 413, "substitutions"),
        ("/api/contrast", {"here": [], "there": []}, 400, "at least 3"),
        ("/api/contrast", {"here": [SEQUENCE] * 201, "there": []}, 413, "201 sequences"),
        ("/api/nothing", {}, 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_sentence(
    server: Server, path: str, question: Any, status: int, what: str
) -> None:
    reply = server.ask(path, question)
    assert reply.status == status
    assert what in reply.json["error"]
    assert len(reply.json["error"]) < 600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b'{"text": NaN}',
        b'{"text": "\\ud800ACG"}',
        b'{"text": ["ACG"]}',
        b'{"text": "ACG", "__proto__": {}}',
        b'{"text": ">a\\u0000b\\nACG\\u0000"}',
    ],
)
def test_bodies_that_are_no_questions_are_refused(server: Server, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/api/paste", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status in (400, 422)
    assert json.loads(answer.read())["error"]
    connection.close()


def test_a_fault_of_the_server_tells_no_more_than_that(session: Session) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("/secret/place")

    with pytest.MonkeyPatch.context() as patch, serving(session) as one:
        patch.setattr(session.model, "cache", broken)
        reply = one.ask("/api/read", {"sequence": SEQUENCE})
        assert (reply.status, "secret" in reply.json["error"]) == (500, False)
        patch.undo()
        assert one.ask("/api/read", {"sequence": SEQUENCE}).status == 200


def test_no_page_of_another_site_can_ask(server: Server) -> None:
    body = {"sequence": SEQUENCE}
    assert server.ask("/api/read", body, Host="evil.example").status == 403
    for origin in ("http://evil.example", "null", "http://["):
        assert server.ask("/api/read", body, Origin=origin).status == 403
    assert server.ask("/api/read", body, Content_Type="text/plain").status == 415
    assert server.ask("/api/read", body, Origin=server.url).status == 200
    assert "access-control-allow-origin" not in server.ask("/api/about").headers


def test_too_long_a_body_is_refused_whatever_it_announces(server: Server) -> None:
    assert server.ask("/api/paste", {"text": "A" * 1_000_001}).status == 413
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    chunks = (b'{"text": "', *[b"A" * 100_000] * 11, b'"}')
    connection.request(
        "POST", "/api/paste", iter(chunks), {"Content-Type": "application/json"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_every_answer_has_the_strict_policy_and_no_path_leaves_the_folders(
    session: Session, tmp_path: Path
) -> None:
    pages = tmp_path / "latest"
    (pages / "atlas").mkdir(parents=True)
    (pages / "atlas" / "index.html").write_text('<html lang="en"><p>atlas</p>')
    (pages / "report.html").write_text("<p>report</p>")
    (tmp_path / "secret.txt").write_text("secret")
    (pages / "atlas" / "link.txt").symlink_to(tmp_path / "secret.txt")
    with serving(session, run_pages=pages) as one:
        for path in ("/", "/api/about", "/static/explorer.js"):
            policy = one.ask(path).headers["content-security-policy"]
            assert "'unsafe-inline'" not in policy
            assert "default-src 'none'" in policy
        for path in ("/atlas/", "/atlas/index.html"):  # told that the model can be asked
            assert one.ask(path).body == b'<html data-explorer="/" lang="en"><p>atlas</p>'
        assert one.ask("/report.html").body == b"<p>report</p>"
        assert one.ask("/api/about").json["atlas"] is True
        for path in (
            "/atlas/../../secret.txt",
            "/atlas/%2e%2e/%2e%2e/secret.txt",
            "/static/..%2f..%2fapi.py",
            "/atlas/link.txt",
            "/atlas//etc/passwd",
            "/secret.txt",
        ):
            reply = one.ask(path)
            assert reply.status in (400, 403, 404), path
            assert b"secret" not in reply.body.replace(b"/secret.txt", b"")


def test_a_token_is_asked_for_and_exchanged_for_a_cookie(session: Session) -> None:
    with serving(session, token="s3cret") as one:
        for reply in (one.ask("/"), one.ask("/api/about"), one.ask("/?token=wrong")):
            assert reply.status == 401
            assert "token" in reply.json["error"]
        assert one.ask("/api/about", Authorization="Bearer s3cret").status == 200
        assert one.ask("/api/about", Authorization="Bearer s3cre\u00df").status == 401
        reply = one.ask("//evil.example/?token=s3cret&x=1")
        assert reply.status == 303
        assert reply.headers["location"] == "/evil.example/?x=1"
        cookie = reply.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert one.ask("/api/about", Cookie=cookie.partition(";")[0]).status == 200


def test_who_asks_too_often_is_told_when_to_come_back(session: Session) -> None:
    with serving(session, limits=Limits(per_minute=60, burst=3)) as one:
        replies = [one.ask("/api/about") for _ in range(5)]
        assert [r.status for r in replies] == [200, 200, 200, 429, 429]
        assert "ask again in" in replies[-1].json["error"]
        assert int(replies[-1].headers["retry-after"]) >= 1
    now = 0.0
    limiter = RateLimiter(60, 2, clock=lambda: now)
    assert [limiter.admit("a") for _ in range(3)] == [0, 0, 1]
    assert limiter.admit("b") == 0
    now = 1.5
    assert [limiter.admit("a") for _ in range(2)] == [0, 0.5]


def test_requests_side_by_side_get_their_own_answers(server: Server, session: Session) -> None:
    rng = np.random.default_rng(2)
    records = [random_record(rng, 30 + i % 7) for i in range(24)]
    expected = [session.values(session.read(one)) for one in records]
    feature = strongest(session, session.read(RECORD), 1)[0].feature.name

    def ask(i: int) -> Any:
        if i % 12 == 5:  # one whose passes are edited
            server.ask("/api/intervene", {"sequence": SEQUENCE, "feature": feature})
        one = records[i % 24]
        sent = {"sequence": one.sequence, "cds_start": one.cds_start}
        answer = server.ask("/api/read", {"sequence": sent, "strongest": 2}).json
        return {r["name"]: r["value"] for r in answer["read_outs"]}

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, range(36)))
    for i, values in enumerate(found):
        assert values == pytest.approx(expected[i % 24], abs=1e-9)


def test_a_client_that_goes_away_stops_its_work(session: Session) -> None:
    """The map below takes many passes; after its client has left, the next one does not wait for them."""
    begun = threading.Event()
    passes = 0
    whole = session.model.prefix_states

    def counted(cache: Any, start: int) -> Any:
        nonlocal passes
        passes += 1
        begun.set()
        time.sleep(0.1)
        return whole(cache, start)

    with pytest.MonkeyPatch.context() as patch, serving(session) as one:
        patch.setattr(session.model, "prefix_states", counted)
        body = json.dumps({"sequence": {"sequence": "ACGU" * 60}}).encode()
        head = f"POST /api/saturation HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", one.port)) as client:
            client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            assert begun.wait(20)
        assert one.ask("/api/read", {"sequence": SEQUENCE}).status == 200
        seen = passes
        time.sleep(0.5)
        assert passes == seen
        assert passes < 20


def test_more_than_may_wait_are_told_so(session: Session) -> None:
    with pytest.MonkeyPatch.context() as patch, serving(session, limits=Limits(waiting=2)) as one:
        plain = session.model.cache

        def slow(ids: Any) -> Any:
            time.sleep(0.3)
            return plain(ids)

        patch.setattr(session.model, "cache", slow)
        with ThreadPoolExecutor(6) as pool:
            asked = list(pool.map(lambda _: one.ask("/api/read", {"sequence": SEQUENCE}), range(6)))
    told = [reply for reply in asked if reply.status == 503]
    assert told
    assert all("wait already" in reply.json["error"] for reply in told)
    assert any(reply.status == 200 for reply in asked)


def test_openapi_describes_every_question_and_answer(server: Server) -> None:
    described = server.ask("/api/openapi.json").json
    for path in ("read", "edit", "saturation", "intervene", "contrast", "paste", "fold", "about", "features"):
        operation = next(iter(described["paths"][f"/api/{path}"].values()))
        assert operation["description"]
        assert "$ref" in operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert operation["responses"]["429"]["content"]["application/json"]["schema"]["$ref"].endswith(
            "ErrorAnswer"
        )
