"""Keys, limits and priorities over HTTP, with an engine that is told what to say."""

import asyncio
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from inferno_runtime.config import AdapterConfig, ServerConfig
from inferno_runtime.openai.errors import ApiError
from inferno_runtime.server import base
from inferno_runtime.server.access import Access
from inferno_runtime.worker.errors import Overloaded
from tests.unit.server.conftest import Running, Start, error_of
from tests.unit.server.fakes import FakeEngine
from tests.unit.server.in_process import SchedulerEngine
from tests.unit.server.test_http import head, raw

pytestmark = pytest.mark.asyncio

KEYS = """\
- {name: plain, key: sk-plain}
- {name: narrow, key: sk-narrow, models: [uno], priority: high, requestsPerMinute: 3}
- {name: lowly, key: sk-lowly, priority: low, tokensPerMinute: 0}
"""


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys.yaml"
    path.write_text(KEYS)
    return str(path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def body(model: str = "fake", **fields: object) -> dict[str, object]:
    return {"model": model, "prompt": "Hi", **fields}


def limit_headers(response: httpx.Response) -> set[str]:
    return {name for name in response.headers if name.startswith("x-ratelimit-")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 401),
        ("GET", "/v1/models/fake", 401),
        ("POST", "/v1/completions", 401),
        ("GET", "/v1/completions", 401),
        ("GET", "/v1/nothing", 401),
        ("GET", "/ws/stream", 401),
        ("GET", "/stream/sse", 401),
        ("GET", "/metrics/profiles/recent", 401),
        ("GET", "/metrics/queue/status", 401),
        ("GET", "/metrics", 200),
        ("GET", "/health", 200),
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
        ("GET", "/nothing", 404),
    ],
)
async def test_paths_that_need_a_key(start: Start, keys: str, method: str, path: str, status: int) -> None:
    server = await start(keys_file=keys)
    response = await server.client.request(method, path)
    assert response.status_code == status
    if status == 401:
        assert error_of(response)["type"] == "authentication_error"
        assert error_of(response)["code"] == "missing_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
        assert not limit_headers(response)
        wrong = await server.client.request(method, path, headers=bearer("sk-planted"))
        assert (wrong.status_code, error_of(wrong)["code"]) == (401, "invalid_api_key")
        assert "planted" not in wrong.text
    known = await server.client.request(method, path, headers=bearer("sk-plain"))
    assert known.status_code != 401


async def test_a_request_without_a_key_costs_nobody_anything(start: Start, keys: str) -> None:
    server = await start(keys_file=keys, requests_per_minute=2)
    for _ in range(5):
        assert (await server.client.get("/v1/models")).status_code == 401
        assert (await server.client.get("/v1/models", headers=bearer("wrong"))).status_code == 401
    response = await server.client.get("/v1/models", headers={"X-API-Key": "sk-plain"})
    assert (response.status_code, response.headers["x-ratelimit-remaining-requests"]) == (200, "1")


async def test_the_connection_goes_on_after_a_refusal(start: Start, keys: str) -> None:
    server = await start(keys_file=keys)
    request = head("Content-Length: 1000") + b"x" * 1000
    last = head("Connection: close", "X-API-Key: sk-plain", method="GET", path="/v1/models")
    answer = await raw(server.port, request * 2 + last)
    assert answer.count(b"HTTP/1.1 401 ") == 2
    assert answer.count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize("lines", [("Content-Length: 99999999",), ("Content-Length: 10", "Expect: 100-continue")])
async def test_a_body_that_need_not_come_is_not_waited_for(
    start: Start, keys: str, lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_LINGER_SECONDS", 0.05)
    server = await start(keys_file=keys)
    answer = await raw(server.port, head(*lines))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer


async def test_a_large_body_of_nobody_is_not_kept(start: Start, keys: str) -> None:
    server = await start(keys_file=keys)
    response = await server.client.post("/v1/completions", content=b"x" * 5_000_000)
    assert response.status_code == 401


async def test_a_key_may_be_limited_to_models(start: Start, keys: str) -> None:
    server = await start(FakeEngine("one", aliases=("uno",)), FakeEngine("two"), keys_file=keys)
    narrow, plain = bearer("sk-narrow"), bearer("sk-plain")
    listed = (await server.client.get("/v1/models", headers=narrow)).json()["data"]
    assert [model["id"] for model in listed] == ["one", "uno"]
    assert len((await server.client.get("/v1/models", headers=plain)).json()["data"]) == 3
    assert (await server.client.post("/v1/completions", json=body("one"), headers=narrow)).status_code == 200
    assert (await server.client.post("/v1/completions", json=body("two"), headers=plain)).status_code == 200


async def test_a_key_for_a_model_is_none_for_its_adapters(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("- {name: narrow, key: sk-narrow, models: [uno]}\n- {name: base, key: sk-base, models: [one]}\n")
    adapters = (
        AdapterConfig(name="sing", source="file:///a.gguf"),
        AdapterConfig(name="hum", source="file:///b.gguf", aliases=("uno",)),
    )
    server = await start(FakeEngine("one", adapters=adapters), keys_file=str(path))
    narrow = bearer("sk-narrow")
    listed = (await server.client.get("/v1/models", headers=narrow)).json()["data"]
    assert [model["id"] for model in listed] == ["one:hum", "uno"]
    for model, status in [("one", 403), ("one:sing", 403), ("one:hum", 200), ("uno", 200)]:
        answer = await server.client.post("/v1/completions", json=body(model), headers=narrow)
        assert answer.status_code == status
    answer = await server.client.post("/v1/completions", json=body("one:hum"), headers=bearer("sk-base"))
    assert answer.status_code == 403
    unknown = await server.client.get("/v1/models/one:shout", headers=narrow)
    assert unknown.status_code == 404
    assert "one:hum" in unknown.text
    assert "one:sing" not in unknown.text


async def test_a_model_that_is_not_allowed_is_a_403(start: Start, keys: str) -> None:
    server = await start(FakeEngine("one", aliases=("uno",)), FakeEngine("two"), keys_file=keys)
    for request in (
        server.client.post("/v1/completions", json=body("two"), headers=bearer("sk-narrow")),
        server.client.get("/v1/models/two", headers=bearer("sk-narrow")),
        server.client.get("/metrics/profiles/recent", params={"model": "two"}, headers=bearer("sk-narrow")),
        server.client.get("/metrics/profiles/stats", params={"model": "two"}, headers=bearer("sk-narrow")),
        server.client.get("/metrics/queue/status", params={"model": "two"}, headers=bearer("sk-narrow")),
    ):
        response = await request
        assert response.status_code == 403
        error = error_of(response)
        assert (error["type"], error["param"], error["code"]) == ("permission_error", "model", "model_not_allowed")
    missing = await server.client.post("/v1/completions", json=body("three"), headers=bearer("sk-narrow"))
    assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


PRIORITIES: dict[str, tuple[str, dict[str, object], dict[str, str], int, str]] = {
    "none": ("sk-plain", {}, {}, 200, "normal"),
    "null": ("sk-plain", {"priority": None}, {}, 200, "normal"),
    "body": ("sk-plain", {"priority": "vip"}, {}, 200, "vip"),
    "header": ("sk-plain", {}, {"X-Inferno-Priority": "Low"}, 200, "low"),
    "body before header": ("sk-plain", {"priority": "high"}, {"X-Inferno-Priority": "low"}, 200, "high"),
    "a key's own": ("sk-lowly", {}, {}, 200, "low"),
    "up to a key's own": ("sk-narrow", {"model": "uno", "priority": "high"}, {}, 200, "high"),
    "below a key's own": ("sk-narrow", {"model": "uno", "priority": "normal"}, {}, 200, "normal"),
    "above a key's own": ("sk-narrow", {"model": "uno", "priority": "vip"}, {}, 403, "priority"),
    "above, in the header": ("sk-lowly", {}, {"X-Inferno-Priority": "normal"}, 403, "X-Inferno-Priority"),
    "no such": ("sk-plain", {"priority": "urgent"}, {}, 400, "priority"),
    "a number": ("sk-plain", {"priority": 1}, {}, 400, "priority"),
    "no such in the header": ("sk-plain", {}, {"X-Inferno-Priority": "1"}, 400, "X-Inferno-Priority"),
}


@pytest.mark.parametrize(("key", "fields", "headers", "status", "outcome"), PRIORITIES.values(), ids=PRIORITIES)
async def test_a_request_is_served_at_a_priority(
    start: Start,
    keys: str,
    key: str,
    fields: dict[str, object],
    headers: dict[str, str],
    status: int,
    outcome: str,
) -> None:
    server = await start(FakeEngine("fake", aliases=("uno",)), keys_file=keys)
    response = await server.client.post("/v1/completions", json=body() | fields, headers=bearer(key) | headers)
    assert response.status_code == status
    if status == 200:
        assert server.engine.submitted[0]["priority"] == outcome
    else:
        error = error_of(response)
        assert error["param"] == outcome
        assert error["type"] == ("permission_error" if status == 403 else "invalid_request_error")
        assert not server.engine.submitted


async def test_every_v1_response_has_the_six_headers(server: Running) -> None:
    before = time.time()
    responses = [
        await server.client.get("/v1/models"),
        await server.client.head("/v1/models"),
        await server.client.get("/v1/nothing"),
        await server.client.delete("/v1/models"),
        await server.client.post("/v1/completions", content=b"{"),
        await server.client.post("/v1/completions", json=body(prompt="x" * 600)),
        await server.complete(max_tokens=3),
        await server.complete(max_tokens=3, stream=True),
    ]
    assert [response.status_code for response in responses] == [200, 200, 404, 405, 400, 400, 200, 200]
    for number, response in enumerate(responses, 1):
        assert response.headers["x-ratelimit-limit-requests"] == "100"
        assert response.headers["x-ratelimit-limit-tokens"] == "10000"
        assert response.headers["x-ratelimit-remaining-requests"] == str(100 - number)
        for name in ("requests", "tokens"):
            assert before <= int(response.headers[f"x-ratelimit-reset-{name}"]) <= time.time() + 61
    # A token is a byte here: a whole answer tells of itself, a stream of what was before its first token.
    assert responses[-3].headers["x-ratelimit-remaining-tokens"] == "10000"
    assert responses[-2].headers["x-ratelimit-remaining-tokens"] == str(10_000 - 5)
    assert responses[-1].headers["x-ratelimit-remaining-tokens"] == str(10_000 - 5 - 2)
    assert not limit_headers(await server.client.get("/health"))
    after = await server.client.get("/v1/models")
    assert after.headers["x-ratelimit-remaining-tokens"] == str(10_000 - 10)


async def test_a_429_for_requests(start: Start) -> None:
    server = await start(requests_per_minute=2)
    for _ in range(2):
        assert (await server.complete()).status_code == 200
    response = await server.complete()
    assert response.status_code == 429
    error = error_of(response)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(server.engine.submitted) == 2
    assert (await server.client.get("/health")).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_429_for_a_prompt_that_exceeds_what_is_left(start: Start, stream: bool) -> None:
    server = await start(tokens_per_minute=100)
    assert (await server.complete("x" * 80, max_tokens=1)).status_code == 200
    response = await server.complete("x" * 20, max_tokens=1, stream=stream)
    assert (response.status_code, error_of(response)["type"]) == (429, "rate_limit_error")
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-ratelimit-remaining-tokens"] == "19"
    assert (await server.complete("x" * 19, max_tokens=50, stream=stream)).status_code == 200
    spent = await server.complete("x", stream=stream)
    assert (spent.status_code, spent.headers["x-ratelimit-remaining-tokens"]) == (429, "0")


async def test_a_key_hears_of_its_own_models_alone(start: Start, keys: str) -> None:
    server = await start(FakeEngine("one", aliases=("uno",)), FakeEngine("two"), keys_file=keys)
    for model in ("one", "two"):
        await server.client.post("/v1/completions", json=body(model), headers=bearer("sk-plain"))
    for secret, models in (("sk-narrow", ["one"]), ("sk-plain", ["two", "one"])):
        recent = (await server.client.get("/metrics/profiles/recent", headers=bearer(secret))).json()
        stats = (await server.client.get("/metrics/profiles/stats", headers=bearer(secret))).json()
        queue = (await server.client.get("/metrics/queue/status", headers=bearer(secret))).json()
        assert [profile["model_id"] for profile in recent["profiles"]] == models
        assert stats["sample_count"] == queue["total_processed"] == len(models)


async def test_what_a_full_queue_refuses_costs_no_tokens(server: Running) -> None:
    server.engine.refuses = Overloaded("Full.")
    response = await server.complete("x" * 100)
    assert response.status_code == 503
    assert response.headers["x-ratelimit-remaining-tokens"] == "10000"
    assert response.headers["x-ratelimit-remaining-requests"] == "99"


async def test_what_was_generated_for_a_client_that_went_is_charged(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await start(FakeEngine(says="x" * 300), token_batch_size=256, token_batch_ms=10_000)
    async with server.client.stream("POST", "/v1/completions", json=body(stream=True)) as response:
        async for _ in response.aiter_text():
            server.engine.resume.clear()
            break
    async with asyncio.timeout(10):
        while server.context.in_flight:
            await asyncio.sleep(0.005)
    (line,) = [record.__dict__ for record in caplog.records if record.name == "inferno_runtime.access"]
    generated = line["completion_tokens"]
    assert generated > 1  # more than was sent
    left = (await server.client.get("/v1/models")).headers["x-ratelimit-remaining-tokens"]
    assert left == str(10_000 - 2 - generated)


async def test_streams_at_once(start: Start) -> None:
    server = await start(max_connections=1)
    server.engine.resume.clear()
    first = asyncio.create_task(server.complete(stream=True))
    async with asyncio.timeout(10):
        while not server.engine.submitted:
            await asyncio.sleep(0.005)
    second = await server.complete(stream=True)
    assert (second.status_code, error_of(second)["code"]) == (429, "too_many_connections")
    assert second.headers["retry-after"] == "1"
    assert len(server.engine.submitted) == 1
    server.engine.resume.set()
    assert (await first).status_code == 200
    assert (await server.complete(stream=True)).status_code == 200


async def test_keys_have_limits_of_their_own(start: Start, keys: str) -> None:
    server = await start(keys_file=keys)
    plain = await server.client.get("/v1/models", headers=bearer("sk-plain"))
    narrow = await server.client.get("/v1/models", headers=bearer("sk-narrow"))
    lowly = await server.client.get("/v1/models", headers=bearer("sk-lowly"))
    assert plain.headers["x-ratelimit-remaining-requests"] == "99"
    assert narrow.headers["x-ratelimit-limit-requests"] == "3"
    assert narrow.headers["x-ratelimit-remaining-requests"] == "2"
    assert "x-ratelimit-limit-tokens" not in lowly.headers
    assert len(limit_headers(lowly)) == 3


async def test_the_log_knows_a_keys_name_and_not_the_key(
    start: Start, keys: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = await start(keys_file=keys)
    await server.client.get("/v1/models", headers=bearer("sk-plain"))
    await server.client.get("/v1/models?api_key=sk-planted")
    await server.client.get("/stream/sse?api_key=sk-planted")
    await server.client.get("/stream/sse?api_key=%ffsk-planted")
    await server.client.get("/stream/sse?api_key=sk-lowly")
    lines = [record.__dict__ for record in caplog.records if record.name == "inferno_runtime.access"]
    assert [line["status"] for line in lines[:-1]] == [200, 401, 401, 401]
    assert lines[-1]["status"] != 401
    assert (lines[0]["key"], lines[-1]["key"]) == ("plain", "lowly")
    ours = [record.__dict__ for record in caplog.records if not record.name.startswith("http")]
    assert not any("sk-" in str(value) for line in ours for value in line.values())


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
async def test_addresses_that_are_one_client(first: str, second: str, same: bool) -> None:
    access = Access(ServerConfig())
    one, two = (access.caller(SimpleNamespace(remote_ip=ip, path="/v1")) for ip in (first, second))  # type: ignore[arg-type]
    assert (one.account is two.account) is same


async def test_a_header_of_another_case_and_space_is_the_same_priority() -> None:
    caller = Access(ServerConfig()).caller(SimpleNamespace(remote_ip="192.0.2.1", path="/v1"))  # type: ignore[arg-type]
    assert caller.priority(None, {"X-Inferno-Priority": " ViP "}) == "vip"
    with pytest.raises(ApiError):
        caller.priority(None, {"X-Inferno-Priority": "vip,low"})


async def test_a_higher_priority_overtakes_those_that_wait(start: Start) -> None:
    engine = SchedulerEngine(slots=1)
    server = await start(engine)
    engine.resume.clear()
    requests = [
        asyncio.create_task(server.complete(f"{priority}", max_tokens=4, ignore_eos=True, priority=priority))
        for priority in ("low", "normal", "vip")
    ]
    async with asyncio.timeout(10):
        while len(engine.submitted) < 3:
            await asyncio.sleep(0.005)
    engine.resume.set()
    assert [(await request).status_code for request in requests] == [200, 200, 200]
    order = [engine.submitted[number - 1]["priority"] for number in engine.finished]
    assert order == ["vip", "normal", "low"]


async def test_no_memory_for_a_request_is_a_507_and_those_beside_it_go_on(start: Start) -> None:
    server = await start(SchedulerEngine(slots=2, cells=64), tokens_per_minute=0)
    too_long, beside = await asyncio.gather(
        server.complete("x" * 40, max_tokens=200, ignore_eos=True, priority="vip"),
        server.complete("y" * 8, max_tokens=20, ignore_eos=True),
    )
    assert (too_long.status_code, beside.status_code) == (507, 200)
    assert (error_of(too_long)["type"], error_of(too_long)["code"]) == ("server_error", "out_of_memory")
    assert beside.json()["usage"]["completion_tokens"] == 20
