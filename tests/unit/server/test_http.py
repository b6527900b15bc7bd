"""What holds for every request: ids, headers, methods, bodies and their limits, the log."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from inferno_runtime.backends.base import ModelError
from inferno_runtime.config import AdapterConfig, ServerConfig
from inferno_runtime.server import logging as server_logging
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine

pytestmark = pytest.mark.asyncio


async def raw(port: int, data: bytes, *, half: bytes = b"") -> bytes:
    """Send bytes and read until the server closes the connection. half: sent once there is an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(20):
        writer.write(data)
        await writer.drain()
        answer = await reader.read(1 << 16)
        if half:
            writer.write(half)
            await writer.drain()
        try:
            while more := await reader.read(1 << 16):
                answer += more
        except ConnectionResetError:
            pass
        writer.close()
        return answer


def head(*lines: str, method: str = "POST", path: str = "/v1/completions") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/completions", 400),
        ("PROPFIND", "/v1/completions", 405),
        ("PROPFIND", "/nowhere", 404),
    ],
)
async def test_every_response_has_the_headers(server: Running, method: str, path: str, status: int) -> None:
    response = await server.client.request(method, path)
    assert response.status_code == status
    assert response.headers["openai-version"] == "2023-06-01"
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["server"] == "inferno"
    if status >= 400:
        assert response.headers["content-type"] == "application/json"
        error_of(response)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc-123", True), ("a" * 128, True), ("with space", True), ("a" * 129, False), ("", False), ("é", False)],
)
async def test_a_sane_request_id_is_kept(server: Running, sent: str, kept: bool) -> None:
    response = await server.client.get("/v1/models", headers={b"X-Request-Id": sent.encode()})
    assert (response.headers["x-request-id"] == sent) is kept


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("HEAD", "/v1/completions", "POST"),
        ("DELETE", "/v1/models/fake", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/metrics", "GET, HEAD"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_there(server: Running, method: str, path: str, allow: str) -> None:
    response = await server.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    if method != "HEAD":
        assert error_of(response)["type"] == "invalid_request_error"
        assert error_of(response)["code"] == "method_not_allowed"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_path_that_is_not_there(server: Running, method: str) -> None:
    response = await server.client.request(method, "/v1/nothing?secret=1", content=b"x" * 1000)
    assert response.status_code == 404
    assert error_of(response)["type"] == "not_found_error"
    assert "secret" not in response.text


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/fake", "/health", "/health/live", "/health/ready", "/metrics"]
)
async def test_head_is_get_without_the_body(server: Running, path: str) -> None:
    get, head_ = await server.client.get(path), await server.client.head(path)
    assert (get.status_code, head_.status_code) == (200, 200)
    assert head_.content == b""
    assert head_.headers["content-type"] == get.headers["content-type"]
    assert int(head_.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ('Application/JSON; charset="UTF-8"', True),
        ("application/vnd.api+json", True),
        ("", True),
        ("application/json; charset=latin-1", False),
        ("text/plain", False),
        ("text/x+json", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
    ],
)
async def test_bodies_are_json(server: Running, kind: str, accepted: bool) -> None:
    body = b'{"model":"fake","prompt":"x"}'
    response = await server.client.post("/v1/completions", content=body, headers={"Content-Type": kind})
    assert response.status_code == (200 if accepted else 415)
    if not accepted:
        assert error_of(response)["code"] == "unsupported_media_type"


async def test_a_compressed_body(server: Running) -> None:
    response = await server.client.post("/v1/completions", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


def assert_413(answer: bytes) -> None:
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 413 ")
    assert b"openai-version: 2023-06-01" in top.lower()
    error = json.loads(body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/completions", "/nowhere", "/v1/models"])
async def test_a_body_that_declares_too_much_is_refused_before_it_is_sent(start: Start, path: str) -> None:
    server = await start(max_body_bytes=2048)
    assert_413(await raw(server.port, head("Content-Length: 99999999999", path=path), half=b"x" * 1_000_000))


async def test_a_client_that_asks_before_it_sends(start: Start) -> None:
    server = await start(max_body_bytes=2048)
    assert_413(await raw(server.port, head("Content-Length: 4096", "Expect: 100-continue")))
    body = b'{"model":"fake","prompt":"x"}'
    lines = (f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close")
    answer = await raw(server.port, head(*lines), half=body)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 OK" in answer


async def test_a_client_that_sends_all_the_same_reads_the_answer(start: Start) -> None:
    server = await start(max_body_bytes=2048)
    response = await server.client.post("/v1/completions", content=b"x" * 5_000_000)
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")


async def test_a_body_that_grows_too_large(start: Start) -> None:
    server = await start(max_body_bytes=2048)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    response = await server.client.post("/v1/completions", content=chunks())
    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")


async def test_a_body_at_the_limit(start: Start) -> None:
    server = await start(max_body_bytes=2048)
    body = b'{"model":"fake","prompt":"x"}'.ljust(2048)
    assert (await server.client.post("/v1/completions", content=body)).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",  # a TLS client
        b"GET /health HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad\x00Name: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        head("Content-Length: ten"),
        head("Content-Length: -1"),
        head("Content-Length: 1", "Content-Length: 2") + b"{}",
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding: chunked", "Content-Length: 2") + b"{}",
        head("Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"2\r\n{}xx0\r\n\r\n",
    ],
)
async def test_a_request_that_is_not_http(server: Running, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answer = await raw(server.port, data)
    top, _, body = answer.partition(b"\r\n\r\n")
    lines = top.decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 400 bad request"
    for line in ("connection: close", "content-type: application/json", "openai-version: 2023-06-01"):
        assert line in lines
    assert f"content-length: {len(body)}" in lines
    assert any(line.startswith("x-request-id: req_") for line in lines)
    error = json.loads(body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "malformed_request")
    assert not any(record.exc_info for record in caplog.records)
    assert (await server.client.get("/health")).status_code == 200


async def test_a_client_that_goes_while_it_sends(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head("Content-Length: 100") + b"half")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(10):
        while b'status="499"' not in server.context.metrics.text():
            await asyncio.sleep(0.01)
    assert not any(record.exc_info for record in caplog.records)
    assert not server.engine.submitted


async def test_models(start: Start) -> None:
    server = await start(FakeEngine("org/one", aliases=("uno",)), FakeEngine("two"))
    body = (await server.client.get("/v1/models")).json()
    assert body["object"] == "list"
    assert [(model["id"], model["root"]) for model in body["data"]] == [
        ("org/one", "org/one"),
        ("uno", "org/one"),
        ("two", "two"),
    ]
    for path, root in [("org/one", "org/one"), ("org%2Fone", "org/one"), ("uno", "org/one"), ("two", "two")]:
        model = (await server.client.get(f"/v1/models/{path}")).json()
        assert (model["object"], model["root"], model["owned_by"]) == ("model", root, "inferno")
        assert (model["permission"], model["parent"], type(model["created"])) == ([], None, int)
    response = await server.client.get("/v1/models/three")
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")
    response = await server.client.get("/v1/models/%ff")
    assert response.status_code == 400
    error_of(response)


async def test_adapters_are_models_of_their_own(start: Start) -> None:
    adapters = (
        AdapterConfig(name="sing", source="file:///a.gguf", aliases=("singer",)),
        AdapterConfig(name="rhyme", source="file:///b.gguf"),
    )
    engine = FakeEngine("one", aliases=("uno",), adapters=adapters)
    server = await start(engine)
    body = (await server.client.get("/v1/models")).json()
    assert [(model["id"], model["root"], model["parent"]) for model in body["data"]] == [
        ("one", "one", None),
        ("uno", "one", None),
        ("one:sing", "one:sing", "one"),
        ("uno:sing", "one:sing", "one"),
        ("singer", "one:sing", "one"),
        ("one:rhyme", "one:rhyme", "one"),
        ("uno:rhyme", "one:rhyme", "one"),
    ]
    for name, adapter, told in [("uno", 0, "one"), ("singer", 1, "one:sing"), ("uno:rhyme", 2, "one:rhyme")]:
        answer = await server.complete(model=name)
        assert answer.json()["model"] == told
        assert engine.submitted[-1]["adapter"] == adapter
    answer = await server.complete(model="uno:hum")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    assert "one:sing, one:rhyme" in str(error_of(answer)["message"])
    answer = await server.complete(model="two:sing")
    assert "one:sing" not in str(error_of(answer)["message"])
    recent = (await server.client.get("/metrics/profiles/recent", params={"model": "singer"})).json()
    assert len(recent["profiles"]) == 1
    status = (await server.client.get("/metrics/queue/status")).json()
    assert status["total_processed"] == 3  # of all together, as the engine is one


@pytest.mark.parametrize("alias", ["one", "uno", "one:sing"])
async def test_an_adapter_by_a_name_that_is_taken(start: Start, alias: str) -> None:
    sing = AdapterConfig(name="sing", source="file:///a.gguf")
    taken = AdapterConfig(name="rhyme", source="file:///a.gguf", aliases=(alias,))
    with pytest.raises(ModelError, match=f"two models go by the name '{alias}'"):
        await start(FakeEngine("one", aliases=("uno",), adapters=(sing, taken)))


async def test_health_of_one_model(start: Start) -> None:
    server = await start(load=False)
    for path in ("/health", "/health/ready"):
        response = await server.client.get(path)
        assert (response.status_code, response.json()["status"]) == (503, "loading")
        assert response.json()["reason"]
    assert (await server.client.get("/health/live")).status_code == 200
    for model in server.context.registry:
        await model.load()
    server.engine.stats.active, server.engine.stats.kv_usage = 2, 0.25
    body = (await server.client.get("/health")).json()
    assert body.pop("uptime_seconds") >= 0
    assert body.pop("version")
    assert body == {
        "status": "healthy",
        "model": "fake",
        "format": "gguf",
        "task": "generate",
        "vision": False,
        "engine": {"state": "ready", "active": 2, "queued": 0, "kv_usage": 0.25, "tuning": {}, "draft": None},
    }
    assert (await server.client.get("/health/ready")).json() == {"status": "healthy"}


async def test_health_of_several_models(start: Start) -> None:
    server = await start(FakeEngine("one"), FakeEngine("two"))
    body = (await server.client.get("/health")).json()
    assert [model["model"] for model in body["models"]] == ["one", "two"]


async def test_an_engine_that_is_dead(server: Running) -> None:
    server.engine.alive = False
    server.engine.state_reason = "it died"
    response = await server.client.get("/health/live")
    assert (response.status_code, response.json()) == (503, {"status": "dead", "reason": "fake: it died"})


async def test_metrics(server: Running) -> None:
    await server.chat()
    await server.complete(max_tokens=2, stream=True)
    server.engine.stats.queued = 7
    response = await server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    for line in (
        'inferno_requests_total{endpoint="chat_completions",model_name="fake",status="200"} 1.0',
        'inferno_requests_total{endpoint="completions",model_name="fake",status="200"} 1.0',
        'inferno_request_success_total{finished_reason="stop",model_name="fake"} 1.0',
        'inferno_request_success_total{finished_reason="length",model_name="fake"} 1.0',
        'inferno_generation_tokens_total{model_name="fake"} 14.0',
        'inferno_num_requests_waiting{model_name="fake"} 7.0',
        'inferno_engine_restarts_total{model_name="fake"} 0.0',
        'inferno_time_to_first_token_seconds_count{model_name="fake"} 2.0',
        'inferno_time_per_output_token_seconds_count{model_name="fake"} 2.0',
        'inferno_e2e_request_latency_seconds_count{model_name="fake"} 2.0',
        'inferno_request_queue_time_seconds_count{model_name="fake"} 2.0',
        'inferno_request_prefill_time_seconds_count{model_name="fake"} 2.0',
        'inferno_request_decode_time_seconds_count{model_name="fake"} 2.0',
        'inferno_request_prompt_tokens_count{model_name="fake"} 2.0',
        'inferno_request_generation_tokens_count{model_name="fake"} 2.0',
    ):
        assert line in lines
    assert "_created" not in response.text


async def test_the_access_log(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await server.client.post(
        "/v1/completions?token=hush",
        json={"model": "fake", "prompt": "private"},
        headers={"X-Request-Id": "mine", "Authorization": "Bearer hush"},
    )
    (record,) = [record for record in caplog.records if record.name == "inferno_runtime.access"]
    fields = record.__dict__
    assert (fields["method"], fields["path"]) == ("POST", "/v1/completions")
    assert (fields["status"], fields["request_id"], fields["model"]) == (200, "mine", "fake")
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (7, 12)
    assert fields["ms"] >= 0
    assert not any("hush" in str(value) or "private" in str(value) for value in fields.values())


async def test_the_forms_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    server_logging.request_id.set("req_1")
    json_form = io.StringIO()
    server_logging.configure(ServerConfig(log_format="auto"), json_form)
    logging.getLogger("x").warning("Où ça?", extra={"ms": 5})
    line = json.loads(json_form.getvalue())
    assert (line["message"], line["level"], line["request_id"], line["ms"]) == ("Où ça?", "WARNING", "req_1", 5)
    text_form = io.StringIO()
    server_logging.configure(ServerConfig(log_format="text", log_level="error"), text_form)
    logging.getLogger("x").warning("unseen")
    logging.getLogger("x").error("seen")
    assert "WARNING" not in text_form.getvalue()
    assert text_form.getvalue().endswith("ERROR   seen  [req_1]\n")


@pytest.mark.parametrize("extra", [(), ("Connection: keep-alive",)])
async def test_a_stream_over_http_1_0_ends_with_its_connection(server: Running, extra: tuple[str, ...]) -> None:
    body = b'{"model":"fake","prompt":"x","stream":true}'
    request = head(f"Content-Length: {len(body)}", *extra).replace(b"HTTP/1.1", b"HTTP/1.0") + body
    answer = await raw(server.port, request)
    assert b"chunked" not in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_requests_of_one_connection(server: Running) -> None:
    async with httpx.AsyncClient(
        base_url=server.client.base_url, limits=httpx.Limits(max_connections=1), trust_env=False
    ) as client:
        for path in ("/nowhere", "/v1/models", "/health"):
            await client.request("POST", path, content=b"x" * 10_000)
            assert (await client.get("/v1/models")).status_code == 200
