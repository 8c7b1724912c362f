"""Annotation by a chat service: what it is sent, and one that is busy, broken, spent or gone."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.model_answers import CAPITALS, GOOD, KEY, concepts

from shiftlens.annotate import (
    AnnotationStoppedError,
    Endpoint,
    OpenAIAnnotator,
)

RAW = -200  # a body sent as it is


class Service:
    """A chat service on this machine that answers from a script; the last reply repeats."""

    def __init__(self, *script: tuple[int, str]) -> None:
        self.script, self.requests, self.lock = list(script), [], threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with service.lock:
                    service.requests.append({"body": body, "key": self.headers.get("Authorization")})
                    status, text = service.script.pop(0) if len(service.script) > 1 else service.script[0]
                if status == 200:
                    choice = {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": text},
                    }
                    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
                    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
                    payload = json.dumps({**head, "choices": [choice], "usage": usage})
                elif status == RAW:
                    status, payload = 200, text
                else:
                    payload = json.dumps({"error": {"message": text}})
                self.send_response(status)
                kind = "text/html" if payload.startswith("<") else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(payload.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("openai", reason="needs the openai package")
    monkeypatch.setenv("MY_KEY", KEY)
    running: list[Service] = []

    def start(*script: tuple[int, str]) -> Service:
        running.append(Service(*script))
        return running[-1]

    yield start
    for service in running:
        service.close()


def ask(service: Service, cache: Path, **settings: Any) -> OpenAIAnnotator:
    endpoint = {"model": "m", "base_url": service.url, "key_env": "MY_KEY", "wait": 0, "parallel": 1, **settings}
    return OpenAIAnnotator(Endpoint(**endpoint), cache)


def test_the_service_gets_words_schema_and_key(serve: Any, tmp_path: Path) -> None:
    service = serve((200, GOOD))
    assert ask(service, tmp_path).annotate(concepts(1)) == [CAPITALS]
    (request,) = service.requests
    body = request["body"]
    assert request["key"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0, 0)
    assert body["messages"][0]["content"].endswith("Words: paris0, rome")
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"description", "level", "task"}


def test_a_busy_or_broken_service_is_asked_again(serve: Any, tmp_path: Path) -> None:
    service = serve((429, "slow down"), (500, "oops"), (200, GOOD))
    assert ask(service, tmp_path).annotate(concepts(1)) == [CAPITALS]
    assert len(service.requests) == 3


def test_malformed_answers_are_asked_again_then_cannot_tell_and_not_kept(serve: Any, tmp_path: Path) -> None:
    service = serve((200, "well, capitals"), (200, GOOD))
    assert ask(service, tmp_path / "a").annotate(concepts(1)) == [CAPITALS]
    hopeless = serve((200, "{not json"))
    (found,) = ask(hopeless, tmp_path / "b", tries=3).annotate(concepts(1))
    assert not found.told and "3 tries" in found.note
    assert len(hopeless.requests) == 3
    assert list((tmp_path / "b").iterdir()) == []


def test_a_service_without_schemas_is_asked_in_words(serve: Any, tmp_path: Path) -> None:
    service = serve((400, "response_format is not supported"), (200, GOOD))
    assert ask(service, tmp_path).annotate(concepts(3)) == [CAPITALS] * 3
    assert ["response_format" in r["body"] for r in service.requests] == [True, False, False, False]


def test_a_kept_answer_makes_no_request_and_another_model_is_a_miss(serve: Any, tmp_path: Path) -> None:
    service = serve((200, GOOD))
    ask(service, tmp_path).annotate(concepts(4))
    assert ask(service, tmp_path).annotate(concepts(4)) == [CAPITALS] * 4
    assert len(service.requests) == 4
    for change in ({"model": "other"}, {"temperature": 1}, {"seed": 1}):
        before = len(service.requests)
        ask(service, tmp_path, **change).annotate(concepts(1))
        assert len(service.requests) == before + 1


@pytest.mark.parametrize("budget", [{"max_requests": 3}, {"max_tokens": 300}])
def test_a_spent_budget_stops_and_keeps_what_was_done(serve: Any, tmp_path: Path, budget: dict[str, int]) -> None:
    service = serve((200, GOOD))
    with pytest.raises(
        AnnotationStoppedError, match=r"after 3 of 8 concepts: annotator\.max_\w+=(3|300) is spent"
    ) as e:
        ask(service, tmp_path, **budget).annotate(concepts(8))
    assert e.value.done == {0: CAPITALS, 1: CAPITALS, 2: CAPITALS}
    assert ask(service, tmp_path, max_requests=5).annotate(concepts(8)) == [CAPITALS] * 8
    assert len(service.requests) == 8


def test_parallel_requests_give_the_same_in_order_and_keep_to_the_budget(serve: Any, tmp_path: Path) -> None:
    service = serve((200, GOOD))
    with pytest.raises(AnnotationStoppedError) as stopped:
        ask(service, tmp_path, parallel=4, max_requests=10).annotate(concepts(40))
    assert len(service.requests) == 10 and len(stopped.value.done) == 10
    assert ask(service, tmp_path, parallel=4).annotate(concepts(40)) == [CAPITALS] * 40


def test_a_damaged_answer_on_disk_is_asked_for_again(serve: Any, tmp_path: Path) -> None:
    service = serve((200, GOOD))
    ask(service, tmp_path).annotate(concepts(3))
    for path, text in zip(sorted(tmp_path.iterdir()), ("", "[1]", '{"annotation": {"level": 1}}'), strict=True):
        path.write_text(text)
    assert ask(service, tmp_path).annotate(concepts(3)) == [CAPITALS] * 3
    assert len(service.requests) == 6


def test_a_service_that_stays_away_or_refuses_ends_it_clearly(serve: Any, tmp_path: Path) -> None:
    for status, requests in ((503, 2), (401, 1), (404, 1)):
        service = serve((status, f"no: key {KEY}"))
        with pytest.raises(AnnotationStoppedError, match=f"after 0 of 5 concepts: the service answered {status}"):
            ask(service, tmp_path, tries=2).annotate(concepts(5))
        assert len(service.requests) == requests
    gone = serve((200, GOOD))
    gone.close()
    with pytest.raises(AnnotationStoppedError, match="cannot be reached"):
        ask(gone, tmp_path, tries=2).annotate(concepts(1))
    gone.close = lambda: None  # type: ignore[method-assign]


def test_the_key_is_in_no_output(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    service = serve((429, f"again, {KEY}"), (200, GOOD), (401, f"Incorrect API key provided: {KEY}"))
    with caplog.at_level(logging.DEBUG):
        annotator = ask(service, tmp_path)
        with pytest.raises(AnnotationStoppedError) as stopped:
            annotator.annotate(concepts(3))
    assert service.requests[0]["key"].endswith(KEY) and "***" in str(stopped.value)
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    shown = [*kept, caplog.text, *capfd.readouterr(), repr(annotator), repr(vars(annotator)), repr(stopped.value)]
    chain = stopped.value
    assert chain.__cause__ is None and chain.__context__ is None
    assert len(kept) == 1 and not any(KEY in text for text in shown)


@pytest.mark.parametrize("body", ["{}", '{"choices": []}', '{"choices": [{}]}', "not json", "<html>"])
def test_a_body_that_is_no_completion_is_the_services_fault(serve: Any, tmp_path: Path, body: str) -> None:
    service = serve((RAW, body), (200, GOOD))
    assert ask(service, tmp_path).annotate(concepts(1)) == [CAPITALS]
    with pytest.raises(AnnotationStoppedError, match="no chat completion; is annotator.base_url right"):
        ask(serve((RAW, body)), tmp_path, tries=2).annotate(concepts(2))
