"""A small server that speaks the chat completions API on this machine, and can be told to misbehave.

Its answers are in the asked form: for each title as many variations as wanted, all of them different. `behave` queues what happens
to the next requests, one after the other; after that it answers well again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Behaviour:
    """What happens to one request: a status other than 200, a pause, other items, another text than JSON of the asked form,
    a text that depends on the question, another body than a completion, or one without some of its fields.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_seconds: float = 0.0
    change: Callable[[Items], Items] = lambda items: items
    text: str | None = None
    write: Callable[[str], str] | None = None
    body: bytes | None = None
    leave_out: tuple[str, ...] = ()


@dataclass
class FakeLanguageModel:
    """The server's memory. `requests` are the bodies that came, `times` when, `keys` with which key."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    always: Behaviour = field(default_factory=Behaviour)
    most_at_once: int = 0
    _queue: deque[Behaviour] = field(default_factory=deque)
    _at_once: int = 0
    _lock: Lock = field(default_factory=Lock)

    def behave(self, *behaviours: Behaviour) -> None:
        """What happens to the next requests."""
        self._queue.extend(behaviours)

    @property
    def asked(self) -> list[str]:
        """Every code that was asked for, in order, as often as it was."""
        questions = [json.loads(request["messages"][1]["content"]) for request in self.requests]
        return [title["code"] for question in questions for title in question["titles"]]

    def begin(self, request: dict[str, Any], key: str) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            self.times.append(time.monotonic())
            self.keys.append(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return self._queue.popleft() if self._queue else self.always

    def end(self) -> None:
        with self._lock:
            self._at_once -= 1


def write_items(request: Mapping[str, Any]) -> Items:
    """Variations that differ from title to title and from prompt to prompt."""
    instructions, question = (message["content"] for message in request["messages"])
    mark = hashlib.sha256(f"{instructions}{request['seed']}".encode()).hexdigest()[:6]
    asked = json.loads(question)
    return [
        {"code": title["code"], "variations": [f"{title['title']}, so {mark} {n}" for n in range(asked["wanted"])]}
        for title in asked["titles"]
    ]


class _Handler(BaseHTTPRequestHandler):
    model: FakeLanguageModel

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.model.begin(request, self.headers["Authorization"])
        try:
            time.sleep(behaviour.pause_seconds)
            if self.path != "/v1/chat/completions":
                self._send(404, {"error": {"message": f"no {self.path} here"}}, {})
            elif behaviour.status != 200:
                message = f"as told, to {self.headers['Authorization']}"
                self._send(behaviour.status, {"error": {"message": message}}, behaviour.headers)
            else:
                text = behaviour.write(request["messages"][1]["content"]) if behaviour.write else behaviour.text
                if text is None:
                    text = json.dumps({"items": behaviour.change(write_items(request))})
                completion = {name: value for name, value in _complete(request, text).items() if name not in behaviour.leave_out}
                self._send(200, completion, behaviour.headers, behaviour.body)
        finally:
            self.model.end()

    def _send(self, status: int, answer: dict[str, Any], headers: Mapping[str, str], body: bytes | None = None) -> None:
        data = json.dumps(answer).encode() if body is None else body
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has lost patience

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _complete(request: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
    }


@contextmanager
def serve_language_model() -> Iterator[FakeLanguageModel]:
    """A server on a free port of this machine for the length of the block."""
    model = FakeLanguageModel()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"model": model}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
