"""Keys, limits and priorities of a real server: exact under load, changed while it serves, and silent about secrets."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime.process import MODEL, ServerProcess, eventually

KEYS = """\
- {name: first, key: sk-planted-first}
- {name: narrow, key: sk-planted-narrow, models: [another], priority: normal}
- {name: spent, key: sk-planted-spent, requestsPerMinute: 1}
- {name: small, key: sk-planted-small, tokensPerMinute: 20}
"""
PLANTED = "sk-planted"


def swap(volume: Path, version: str, text: str) -> None:
    """Put a new version of the keys in place at once, as a kubelet does with a mounted Secret."""
    (volume / version).mkdir()
    (volume / version / "keys.yaml").write_text(text)
    (volume / "..data_tmp").symlink_to(version)
    os.replace(volume / "..data_tmp", volume / "..data")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret")
    swap(folder, "first", KEYS)
    (folder / "keys.yaml").symlink_to("..data/keys.yaml")
    return folder


@pytest.fixture(scope="module")
def guarded(volume: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--keys-file", str(volume / "keys.yaml"), "--log-level", "debug") as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {PLANTED}-{key}"}


def ask(server: ServerProcess, key: str, **fields: object) -> httpx.Response:
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 4, **fields}
    return server.client.post("/v1/completions", json=body, headers=bearer(key))


def test_headers_are_exact_under_fifty_requests_at_once() -> None:
    with ServerProcess("--requests-per-minute", "60", "--tokens-per-minute", "100000") as server:

        async def complete(client: httpx.AsyncClient, number: int) -> httpx.Response:
            body = {"model": MODEL, "prompt": f"Story {number}:", "max_tokens": 3, "stream": number % 2 == 0}
            return await client.post("/v1/completions", json=body)

        async def all_at_once() -> list[httpx.Response]:
            pool = httpx.Limits(max_connections=50)
            async with httpx.AsyncClient(base_url=server.root, timeout=120, limits=pool, trust_env=False) as client:
                return await asyncio.gather(*(complete(client, number) for number in range(50)))

        answers = asyncio.run(all_at_once())
        assert [answer.status_code for answer in answers] == [200] * 50
        left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers)
        assert left == list(range(10, 60))
        assert len({answer.headers["x-ratelimit-reset-requests"] for answer in answers}) == 1
        more = [server.client.get("/v1/models") for _ in range(11)]
        assert [answer.status_code for answer in more] == [200] * 10 + [429]
        total = 100_000 - int(more[0].headers["x-ratelimit-remaining-tokens"])
        text = server.client.get("/metrics").text
        counted = sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(("inferno_prompt_tokens_total", "inferno_generation_tokens_total"))
        )
        assert total == counted
        error = more[-1].json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert 1 <= int(more[-1].headers["retry-after"]) <= 60


def test_an_openai_client_is_let_in_by_its_key(guarded: ServerProcess) -> None:
    message = {"role": "user", "content": "What is the capital of France?"}
    with openai.OpenAI(base_url=guarded.url, api_key=f"{PLANTED}-first", max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=[message], temperature=0)  # type: ignore[list-item]
        assert "Paris" in (answer.choices[0].message.content or "")
    with openai.OpenAI(base_url=guarded.url, api_key="sk-planted-unknown", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as caught:
            stranger.models.list()
        assert PLANTED not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "fields", "status", "kind"),
    [
        ("unknown", {}, 401, "authentication_error"),
        ("narrow", {}, 403, "permission_error"),
        ("first", {"model": "another"}, 404, "invalid_request_error"),
        ("small", {"prompt": "word " * 40}, 429, "rate_limit_error"),
    ],
)
def test_refusals(guarded: ServerProcess, key: str, fields: dict[str, object], status: int, kind: str) -> None:
    response = ask(guarded, key, **fields)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert ("retry-after" in response.headers) is (status == 429)


def test_a_key_that_is_spent(guarded: ServerProcess) -> None:
    assert ask(guarded, "spent").status_code == 200
    assert ask(guarded, "spent").status_code == 429
    assert ask(guarded, "first").status_code == 200


def test_keys_are_swapped_while_a_stream_runs_and_a_bad_file_changes_nothing(
    guarded: ServerProcess, volume: Path
) -> None:
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 900, "ignore_eos": True, "stream": True, "temperature": 0}
    url = f"{guarded.url}/completions"
    with httpx.stream("POST", url, json=body, headers=bearer("first"), timeout=120, trust_env=False) as response:
        lines = response.iter_lines()
        next(lines)
        swap(volume, "second", KEYS + "- {name: new, key: sk-planted-new}\n")
        eventually(lambda: ask(guarded, "new").status_code == 200, "the new key is known")
        swap(volume, "third", "- {name: new, key: 'sk-planted-garbled")
        eventually(lambda: "the keys stay as they were" in guarded.log, "the bad file is logged")
        assert ask(guarded, "new").status_code == 200
        swap(volume, "fourth", "- {name: last, key: sk-planted-last}\n")
        eventually(lambda: ask(guarded, "new").status_code == 401, "the old keys are gone")
        assert ask(guarded, "last").status_code == 200
        assert [line for line in lines if line][-1] == "data: [DONE]"
    swap(volume, "fifth", KEYS)
    eventually(lambda: ask(guarded, "first").status_code == 200, "the first keys are back")


def test_no_key_is_ever_logged(guarded: ServerProcess) -> None:
    ask(guarded, "first")
    ask(guarded, "unknown")
    for path in ("/stream/sse", "/ws/stream", "/v1/models", "/nowhere"):
        guarded.client.get(f"{path}?api_key={PLANTED}-first")
        guarded.client.get(f"{path}?api_key=%ff{PLANTED}-first")
    guarded.client.get("/v1/models", headers={"X-API-Key": f"{PLANTED}-first", "X-Request-Id": "the-last-one"})
    eventually(lambda: "the-last-one" in guarded.log, "the last request is logged")
    assert PLANTED not in guarded.log
    lines = [json.loads(line) for line in guarded.log.splitlines()]
    assert any(line.get("key") == "first" for line in lines)


def test_a_keys_file_that_is_wrong_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"- {{name: a, key: {PLANTED}, colour: blue}}\n")
    command = [sys.executable, "-m", "inferno_runtime", "serve", str(DEFAULT_MODEL), "--keys-file", str(path)]
    done = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip() == f"inferno: {path}: entry 1: it has an unknown field"


def test_vip_requests_are_answered_before_low_ones_that_came_first() -> None:
    with ServerProcess("--slots", "1", "--context-length", "100000") as server:

        async def complete(client: httpx.AsyncClient, name: str) -> None:
            body = {"model": MODEL, "prompt": "Once", "max_tokens": 2, "priority": name.partition("-")[0]}
            (await client.post("/v1/completions", json=body, headers={"X-Request-Id": name})).raise_for_status()

        async def queued(client: httpx.AsyncClient) -> int:
            return int((await client.get("/health")).json()["engine"]["queued"])

        async def load() -> None:
            endless = {"model": MODEL, "prompt": "Once", "max_tokens": 90_000, "ignore_eos": True, "stream": True}
            async with (
                httpx.AsyncClient(base_url=server.root, timeout=120, trust_env=False) as client,
                asyncio.TaskGroup() as group,
                client.stream("POST", "/v1/completions", json=endless) as response,
            ):
                lines = response.aiter_lines()
                await anext(lines)
                # Once all wait, the stream's client goes, and the slot is free.
                for count, name in enumerate(("low-1", "low-2", "vip-1"), 1):
                    group.create_task(complete(client, name))
                    while await queued(client) != count:
                        await asyncio.sleep(0.005)

        asyncio.run(load())
        eventually(lambda: server.log.count('"low-') == 2, "all are logged")
        order = [json.loads(line)["request_id"] for line in server.log.splitlines()]
        assert [name for name in order if name in ("low-1", "low-2", "vip-1")] == ["vip-1", "low-1", "low-2"]
