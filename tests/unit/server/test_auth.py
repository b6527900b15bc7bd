"""Keys: their file, how a request shows one, and what becomes of a file that changes."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from tornado.httputil import HTTPHeaders

from inferno_runtime.engine.request import Priority
from inferno_runtime.server.auth import AccessError, Key, KeyRing, guarded, parse, presented

SECRET = "sk-planted-8f3a"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def test_an_entry_with_everything() -> None:
    (key,) = parse(
        f"- name: research\n  key: {SECRET}\n  models: [llama, tiny]\n  priority: high\n"
        "  requestsPerMinute: 600\n  tokensPerMinute: 0\n  maxConnections: 3\n"
    )
    assert key == Key("research", bytes.fromhex(DIGEST), frozenset({"llama", "tiny"}), Priority.HIGH, 600, 0, 3)
    assert SECRET not in repr(key)
    assert DIGEST not in repr(key)


def test_a_key_and_its_digest_are_the_same() -> None:
    (by_key,) = parse(f"- {{name: a, key: {SECRET}}}")
    (by_digest,) = parse(f"- {{name: a, sha256: {DIGEST}}}")
    assert by_key == by_digest
    assert (by_key.models, by_key.priority, by_key.requests_per_minute) == (None, None, None)


ENTRY = f"- name: a\n  key: {SECRET}\n"
WRONG: dict[str, tuple[str, str]] = {
    "nothing": ("", "must hold a list"),
    "an empty list": ("[]", "must hold a list"),
    "a mapping": (f"name: a\nkey: {SECRET}\n", "must hold a list"),
    "a string": (SECRET, "must hold a list"),
    "strings": (f"- {SECRET}\n", "entry 1: it must have a name and a key"),
    "no name": (f"- key: {SECRET}\n", "entry 1: name: Field required"),
    "no key": (ENTRY + "- name: b\n", "entry 2: it needs either key or sha256"),
    "key and digest": (f"{ENTRY}  sha256: {DIGEST}\n", "entry 1: it needs either key or sha256"),
    "a key as a field": (f"- name: a\n  {SECRET}: true\n", "entry 1: it has an unknown field"),
    "a key with a space": (f"- name: a\n  key: {SECRET} {SECRET}\n", "entry 1: key: String should match"),
    "a number for a key": ("- name: a\n  key: 12345678\n", "entry 1: key: Input should be a valid string"),
    "a digest that is none": (f"- name: a\n  sha256: {SECRET}\n", "entry 1: sha256: String should match"),
    "a priority that is none": (f"{ENTRY}  priority: {SECRET}\n", "entry 1: priority: Input should be 'vip'"),
    "a negative limit": (f"{ENTRY}  requestsPerMinute: -1\n", "entry 1: requestsPerMinute: Input should be greater"),
    "a model that is no list": (f"{ENTRY}  models: {SECRET}\n", "entry 1: models: Input should be a valid tuple"),
    "a model that is no string": (f"{ENTRY}  models: [1]\n", "entry 1: models: Input should be a valid string"),
    "the same name": (ENTRY + "- name: a\n  key: other\n", "entries 1 and 2 have the same name"),
    "the same key": (f"{ENTRY}- name: b\n  sha256: {DIGEST}\n", "entries 1 and 2 have the same key"),
    "no YAML": (f"- name: a\n  key: '{SECRET}\n", "not YAML, line"),
    "no YAML at a key": (f"- name: a\n  key: @{SECRET}\n", "not YAML, line 2"),
    "too deep": ("[" * 50_000, "not YAML"),
    "an impossible date": ("- name: 2024-99-99\n", "not YAML"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_explained_without_a_word_of_it(text: str, message: str) -> None:
    with pytest.raises(AccessError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "planted" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


SHOWN: dict[str, tuple[Mapping[str, str], str, bytes | None]] = {
    "none": ({}, "/v1/models", None),
    "bearer": ({"Authorization": "Bearer abc"}, "/v1/models", b"abc"),
    "bearer in any case": ({"authorization": "bEARER   abc "}, "/v1/models", b"abc"),
    "bearer of nothing": ({"Authorization": "Bearer"}, "/v1/models", None),
    "another scheme": ({"Authorization": "Basic abc"}, "/v1/models", None),
    "no scheme": ({"Authorization": "abc"}, "/v1/models", None),
    "x-api-key": ({"x-api-key": " abc "}, "/v1/models", b"abc"),
    "an empty x-api-key": ({"X-API-Key": ""}, "/v1/models", None),
    "bearer first": ({"Authorization": "Bearer abc", "X-API-Key": "def"}, "/v1/models", b"abc"),
    "x-api-key beside another scheme": ({"Authorization": "Basic abc", "X-API-Key": "def"}, "/v1/models", b"def"),
    "bytes that are no ASCII": ({"X-API-Key": "\xc3\xa9"}, "/v1/models", "é".encode()),
}


@pytest.mark.parametrize(("headers", "path", "expected"), SHOWN.values(), ids=SHOWN)
def test_a_key_is_shown_in_a_header(headers: Mapping[str, str], path: str, expected: bytes | None) -> None:
    assert presented(HTTPHeaders(dict(headers)), {}, path) == expected


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/stream/sse", True),
        ("/v1/stream/sse", True),
        ("/ws/stream", True),
        ("/v1/ws/stream", True),
        ("/v1/models", False),
        ("/v1/chat/completions", False),
        ("/metrics/profiles/recent", False),
        ("/stream/sse/", False),
    ],
)
def test_a_key_in_the_query_is_for_browsers_streams_alone(path: str, taken: bool) -> None:
    query = {"api_key": [b"abc"]}
    assert presented(HTTPHeaders(), query, path) == (b"abc" if taken else None)
    assert presented(HTTPHeaders({"X-API-Key": "def"}), query, path) == b"def"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1", True),
        ("/v1/models", True),
        ("/v1/nothing", True),
        ("/ws/stream", True),
        ("/stream/sse", True),
        ("/metrics/profiles/recent", True),
        ("/metrics/queue/status", True),
        ("/metrics", False),
        ("/health", False),
        ("/health/ready", False),
        ("/v10/models", False),
        ("/", False),
    ],
)
def test_paths_that_need_a_key(path: str, expected: bool) -> None:
    assert guarded(path) is expected


@pytest.fixture
def secret_volume(tmp_path: Path) -> Path:
    """Keys as a kubelet mounts a Secret: the file is a link into `..data`, which is a link to a folder of a version."""
    put(tmp_path, "first", ENTRY)
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    return tmp_path


def put(volume: Path, version: str, text: str | None) -> None:
    """Swap the whole content of the volume at once."""
    (volume / version).mkdir()
    if text is not None:
        (volume / version / "keys.yaml").write_text(text)
    (volume / "..data_tmp").symlink_to(version)
    os.replace(volume / "..data_tmp", volume / "..data")


def test_a_swapped_secret_is_read_again(secret_volume: Path) -> None:
    ring = KeyRing(secret_volume / "keys.yaml")
    found = ring.find(SECRET.encode())
    assert found is not None
    assert found.name == "a"
    assert ring.find(b"other") is None
    other = SECRET[::-1]
    put(secret_volume, "second", ENTRY.replace(SECRET, other))  # of the same size
    ring.refresh()
    assert ring.find(SECRET.encode()) is None
    assert ring.find(other.encode()) is not None


@pytest.mark.parametrize(
    ("text", "why"), [(None, "No such file"), (f"{SECRET}: [", "not YAML"), ("[]", "must hold a list")]
)
def test_a_file_that_goes_wrong_keeps_the_old_keys_and_is_logged_once(
    secret_volume: Path, text: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing(secret_volume / "keys.yaml")
    put(secret_volume, "second", text)
    ring.refresh()
    ring.refresh()
    assert ring.find(SECRET.encode()) is not None
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert why in record.getMessage()
    assert str(secret_volume) in record.getMessage()
    assert "planted" not in caplog.text
    put(secret_volume, "third", "- name: c\n  key: third\n")
    ring.refresh()
    assert ring.find(b"third") is not None


def test_a_file_is_read_only_when_it_has_changed(secret_volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(secret_volume / "keys.yaml")
    monkeypatch.setattr("inferno_runtime.server.auth.parse", lambda text: pytest.fail("it was read again"))
    ring.refresh()


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), (b"\xff", "not UTF-8"), (b"#" * (2 << 20), "larger than"), (b"- name: a\n", "entry 1")],
)
def test_a_file_that_cannot_be_used_is_one_line_at_the_start(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "keys.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AccessError, match=why) as caught:
        KeyRing(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
