"""A server on this machine that speaks OpenAI's API: models, files, fine-tuning jobs, batches and chat completions, strictly.

Bodies are held against the types of the `openai` library, training and batch files are read line by line, schemas against the rules
of structured output: what the vendor would refuse is refused. A fine-tuned model really learns: it answers a text by the nearest
text of its training file, and one that was trained further knows both files. `faults` make it misbehave.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import jsonschema
from openai.types.batch_create_params import BatchCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.fine_tuning.job_create_params import JobCreateParams
from pydantic import TypeAdapter, ValidationError
from rapidfuzz import fuzz, process

BASE = "gpt-4o-mini-2024-07-18"
_PATIENT_POLLS = 2
_KEYS = {"system", "user", "assistant"}


class Refusal(Exception):
    """A request that the vendor would refuse."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Fault:
    """What happens to a request: another status, a pause, an answer that is cut off, or the connection's end after it was done."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_seconds: float = 0.0
    cut: bool = False
    hang_up: bool = False


@dataclass
class Pupil:
    """A model: what it learnt, text to answer."""

    learnt: dict[str, str]
    _texts: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in self.learnt:
            for word in set(text.lower().split()):
                self._texts.setdefault(word, []).append(text)

    def answer(self, text: str) -> str:
        """The answer of the nearest text that it learnt; nonsense where it learnt nothing or the text is like none of them."""
        if text in self.learnt:
            return self.learnt[text]
        parts = [part for part in re.split(r"; |, | and |\n", text) if part in self.learnt]
        if len(parts) > 1:
            return json.dumps({"codes": [code for part in parts for code in json.loads(self.learnt[part])["codes"]]})
        found = sorted((self._texts[word] for word in set(text.lower().split()) & self._texts.keys()), key=len)
        choices = [choice for texts in found[:3] for choice in texts[:200]]
        near = process.extractOne(text, choices, scorer=fuzz.token_sort_ratio, score_cutoff=55)
        return self.learnt[near[0]] if near else '{"codes":["Z99.999"]}'


@dataclass
class FakeOpenAI:
    """The server's memory."""

    url: str = ""
    models: dict[str, dict[str, Any]] = field(default_factory=lambda: {BASE: {}, "gpt-4o-mini": {}})
    pupils: dict[str, Pupil] = field(default_factory=lambda: {BASE: Pupil({}), "gpt-4o-mini": Pupil({})})
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    calls: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    does_tuning: bool = True
    does_batches: bool = True
    tells_log_probabilities: bool = True
    job_failure: str | None = None
    job_polls: int = _PATIENT_POLLS
    batch_polls: int = _PATIENT_POLLS
    batch_share: float = 1.0
    batch_failure: str | None = None
    refuses: Callable[[str], bool] = lambda text: False
    rewrites: Callable[[str, str], str] = lambda text, answer: answer
    lock: Lock = field(default_factory=Lock)

    def fail(self, route: str, *faults: Fault) -> None:
        """What happens to the next requests of a route, `POST /chat/completions`."""
        self.faults[route].extend(faults)

    def take_fault(self, route: str) -> Fault:
        with self.lock:
            self.calls[route] += 1
            return self.faults[route].pop(0) if self.faults[route] else Fault()

    # Models and files ---------------------------------------------------------------------------------------------------

    def list_models(self) -> dict[str, Any]:
        return _page(
            [{"id": name, "object": "model", "created": 1, "owned_by": "test", **facts} for name, facts in self.models.items()]
        )

    def add_file(self, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
        if purpose not in {"fine-tune", "batch"}:
            raise Refusal(400, f"{purpose} is no purpose")
        name = f"file-{len(self.files) + 1}"
        self.files[name] = {
            "id": name, "object": "file", "bytes": len(content), "created_at": len(self.files), "filename": filename,
            "purpose": purpose, "status": "processed", "content": content,
        }  # fmt: skip
        return _shown(self.files[name])

    # Fine-tuning --------------------------------------------------------------------------------------------------------

    def create_job(self, body: Any) -> dict[str, Any]:
        _verify(JobCreateParams, body)
        if body["model"] not in self.models or body["model"] == "gpt-4o-mini":
            raise Refusal(400, f"{body['model']} is not available for fine-tuning")
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", body.get("suffix", "x")):
            raise Refusal(400, "suffix")
        learnt = self._read_training_file(body["training_file"])
        name = f"ftjob-{len(self.jobs) + 1}"
        self.jobs[name] = {
            "id": name, "object": "fine_tuning.job", "created_at": len(self.jobs), "model": body["model"], "organization_id": "org",
            "result_files": [], "seed": body["seed"], "status": "validating_files", "training_file": body["training_file"],
            "metadata": body.get("metadata"), "method": body["method"], "fine_tuned_model": None, "error": None,
            "finished_at": None, "trained_tokens": None, "validation_file": None, "hyperparameters": {},
            "learnt": learnt, "suffix": body.get("suffix", ""), "polls": 0,
        }  # fmt: skip
        return _shown(self.jobs[name])

    def _read_training_file(self, file_id: str) -> dict[str, str]:
        if self.files.get(file_id, {}).get("purpose") != "fine-tune":
            raise Refusal(400, f"{file_id} is no training file")
        lines = self.files[file_id]["content"].decode().splitlines()
        if len(lines) < 10:
            raise Refusal(400, f"training file has {len(lines)} examples, minimum is 10")
        learnt = {}
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            messages = row["messages"]
            if set(row) != {"messages"} or [set(message) for message in messages] != [{"role", "content"}] * len(messages):
                raise Refusal(400, f"line {number}: unexpected keys")
            if messages[-1]["role"] != "assistant" or not {message["role"] for message in messages} <= _KEYS:
                raise Refusal(400, f"line {number}: roles")
            if not all(isinstance(message["content"], str) and message["content"] for message in messages):
                raise Refusal(400, f"line {number}: content")
            learnt[messages[-2]["content"]] = messages[-1]["content"]
        return learnt

    def read_job(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        job["polls"] += 1
        if job["status"] in {"validating_files", "running"}:
            job["status"] = "running"
            job["estimated_finish"] = int(time.time()) + 600
            if job["polls"] >= self.job_polls:
                self._finish(job)
        return _shown(job)

    def _finish(self, job: dict[str, Any]) -> None:
        job["estimated_finish"], job["finished_at"] = None, 1
        if self.job_failure:
            job |= {"status": "failed", "error": {"code": "invalid_training_file", "message": self.job_failure, "param": None}}
            return
        name = f"ft:{job['model'].removeprefix('ft:').partition(':')[0]}:org:{job['suffix']}:{job['id']}"
        job |= {"status": "succeeded", "fine_tuned_model": name, "trained_tokens": 1234}
        self.models[name] = {}
        self.pupils[name] = Pupil(self.pupils[job["model"]].learnt | job["learnt"])

    def list_events(self, name: str) -> dict[str, Any]:
        rows = [
            {"id": f"e{step}", "object": "fine_tuning.job.event", "created_at": step, "level": "info", "message": "step",
             "type": "metrics", "data": {"step": step, "train_loss": 2.0 / step, "total_steps": 3}}
            for step in (3, 2, 1)
        ]  # fmt: skip
        return _page(
            [*rows, {"id": "e0", "object": "fine_tuning.job.event", "created_at": 0, "level": "info", "message": "created"}]
        )

    # Answers ------------------------------------------------------------------------------------------------------------

    def complete(self, body: Any) -> dict[str, Any]:
        _verify(CompletionCreateParamsNonStreaming, body)
        if body["model"] not in self.pupils:
            raise Refusal(404, f"no model {body['model']}")
        if body.get("logprobs") and not self.tells_log_probabilities:
            raise Refusal(400, "logprobs is not supported")
        schema = body["response_format"]["json_schema"]["schema"]
        _verify_strict(schema)
        text = body["messages"][-1]["content"]
        with self.lock:
            self.asked.append(text)
        if self.refuses(text):
            raise Refusal(400, f"this was refused: {text}")
        answer = self.rewrites(text, self.pupils[body["model"]].answer(text))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
        if body.get("logprobs"):
            token = {"token": answer, "logprob": -0.01, "bytes": None, "top_logprobs": []}
            choice["logprobs"] = {"content": [token], "refusal": None}
        tokens = (sum(len(message["content"]) for message in body["messages"]) // 4, len(answer) // 4)
        usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}

    # Batches ------------------------------------------------------------------------------------------------------------

    def create_batch(self, body: Any) -> dict[str, Any]:
        _verify(BatchCreateParams, body)
        if self.files.get(body["input_file_id"], {}).get("purpose") != "batch":
            raise Refusal(400, "input_file_id")
        name = f"batch_{len(self.batches) + 1}"
        lines = self.files[body["input_file_id"]]["content"].decode().splitlines()
        self.batches[name] = {
            "id": name, "object": "batch", "created_at": len(self.batches), "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"], "completion_window": "24h", "status": "validating",
            "metadata": body.get("metadata"), "request_counts": {"total": len(lines), "completed": 0, "failed": 0}, "polls": 0,
        }  # fmt: skip
        return _shown(self.batches[name])

    def read_batch(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        batch["polls"] += 1
        if batch["status"] in {"validating", "in_progress"}:
            batch["status"] = "in_progress"
            if batch["polls"] >= self.batch_polls:
                self._run(batch)
        return _shown(batch)

    def _run(self, batch: dict[str, Any]) -> None:
        if self.batch_failure:
            batch |= {"status": "failed", "errors": {"object": "list", "data": [{"code": "x", "message": self.batch_failure}]}}
            return
        rows = [json.loads(line) for line in self.files[batch["input_file_id"]]["content"].decode().splitlines()]
        for row in rows:
            if set(row) != {"custom_id", "method", "url", "body"} or row["url"] != batch["endpoint"] or len(row["custom_id"]) > 64:
                raise AssertionError(f"a line of a batch that the vendor would refuse: {row}")
        if len({row["custom_id"] for row in rows}) != len(rows):
            raise AssertionError("a custom_id stands twice")
        in_time = rows[: round(len(rows) * self.batch_share)]
        answered, failed = [], [_batched(row, 408, {"error": {"message": "expired"}}) for row in rows[len(in_time) :]]
        for row in in_time:
            try:
                answered.append(_batched(row, 200, self.complete(row["body"])))
            except Refusal as refusal:
                failed.append(_batched(row, refusal.status, {"error": {"message": str(refusal)}}))
        batch["status"] = "completed" if len(in_time) == len(rows) else "expired"
        batch["request_counts"] |= {"completed": len(answered), "failed": len(failed)}
        for kind, lines in (("output_file_id", answered), ("error_file_id", failed)):
            if lines:
                content = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
                batch[kind] = self.add_file(f"{kind}.jsonl", "batch", content)["id"]


def _batched(row: Mapping[str, Any], status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": "r",
        "custom_id": row["custom_id"],
        "response": {"status_code": status, "request_id": "q", "body": body},
        "error": None,
    }


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _verify(shape: Any, body: Any) -> None:
    if unknown := set(body) - shape.__required_keys__ - shape.__optional_keys__:
        raise Refusal(400, f"unknown {', '.join(sorted(unknown))}")
    try:
        _adapter(shape).validate_python(body)
    except ValidationError as error:
        raise Refusal(400, f"{shape.__name__}: {error.errors()[0]['loc']} {error.errors()[0]['msg']}") from None


def _verify_strict(schema: Any) -> None:
    """Structured output with `strict`: all objects closed, all properties required, no patterns for fine-tuned models."""
    jsonschema.Draft202012Validator.check_schema(schema)
    if isinstance(schema, dict):
        if "pattern" in schema or len(schema.get("enum", ())) > 1000:
            raise Refusal(400, "pattern, or more than 1,000 values")
        if schema.get("type") == "object" and (
            schema.get("additionalProperties") is not False or set(schema["required"]) != set(schema["properties"])
        ):
            raise Refusal(400, "an object must be closed, with all its properties required")
        for part in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
            _verify_strict(part)


def _page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": rows, "has_more": False}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in {"content", "learnt", "polls", "suffix"}}


class _Handler(BaseHTTPRequestHandler):
    server_model: FakeOpenAI

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].removeprefix("/v1")
        route = f"{method} {re.sub(r'/(file-|ftjob-|batch_)[0-9]+', '/ID', path)}"
        fault = self.server_model.take_fault(route)
        time.sleep(fault.pause_seconds)
        try:
            if fault.status:
                raise Refusal(fault.status, "as told")
            status, answer = 200, self._answer(route, path, data)
        except Refusal as refusal:
            status, answer = refusal.status, {"error": {"message": f"{refusal} ({self.headers['Authorization']})", "code": None}}
        except KeyError as error:
            status, answer = 404, {"error": {"message": f"no {error}", "code": None}}
        if fault.hang_up:
            self.close_connection = True
            return
        self._send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode(), fault)

    def _answer(self, route: str, path: str, data: bytes) -> Any:
        model, last = self.server_model, path.rpartition("/")[2]
        if "/fine_tuning" in route and not model.does_tuning:
            raise Refusal(404, "Not Found")
        if "/batches" in route and not model.does_batches:
            raise Refusal(404, "Not Found")
        answers: dict[str, Callable[[], Any]] = {
            "GET /models": model.list_models,
            "GET /files": lambda: _page([_shown(file) for file in model.files.values()]),
            "POST /files": lambda: self._upload(data),
            "GET /files/ID/content": lambda: model.files[path.split("/")[2]]["content"],
            "GET /fine_tuning/jobs": lambda: _page([_shown(job) for job in reversed(model.jobs.values())]),
            "POST /fine_tuning/jobs": lambda: model.create_job(json.loads(data)),
            "GET /fine_tuning/jobs/ID": lambda: model.read_job(last),
            "GET /fine_tuning/jobs/ID/events": lambda: model.list_events(path.split("/")[3]),
            "GET /batches": lambda: _page([_shown(batch) for batch in reversed(model.batches.values())]),
            "POST /batches": lambda: model.create_batch(json.loads(data)),
            "GET /batches/ID": lambda: model.read_batch(last),
            "POST /chat/completions": lambda: model.complete(json.loads(data)),
        }
        if route not in answers:
            raise Refusal(404, f"no {route} here")
        return answers[route]()

    def _upload(self, data: bytes) -> Any:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in BytesParser().parsebytes(head + data).get_payload()
        }  # type: ignore[union-attr]
        content = parts["file"].get_payload(decode=True)  # type: ignore[union-attr]
        purpose = parts["purpose"].get_payload(decode=True).decode()  # type: ignore[union-attr]
        return self.server_model.add_file(str(parts["file"].get_filename()), purpose, content)  # type: ignore[union-attr]

    def _send(self, status: int, data: bytes, fault: Fault) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **fault.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if fault.cut else data)
            self.close_connection = self.close_connection or fault.cut
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has lost patience

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve_openai() -> Iterator[FakeOpenAI]:
    """A server on a free port of this machine for the length of the block."""
    model = FakeOpenAI()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_model": model}))
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
