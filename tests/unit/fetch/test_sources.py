"""From a source to its files, against servers that speak each protocol."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.errors import (
    BadSource,
    CacheFull,
    DigestMismatch,
    Forbidden,
    NoModelFound,
    NotFound,
    Unauthorized,
    Unreachable,
)
from inferno_runtime.fetch.http import Client
from inferno_runtime.fetch.model import Fetcher, Wanted
from inferno_runtime.fetch.names import chosen
from inferno_runtime.fetch.policy import Policy
from inferno_runtime.models.digest import model_digest, set_digest
from inferno_runtime.models.source import DEFAULT_MODEL
from inferno_runtime.sources import BucketSource, HubSource, WebSource
from tests.unit.fetch import web as faulty
from tests.unit.fetch.s3 import ACCESS, REGION, S3, SECRET, TOKEN
from tests.unit.fetch.web import Handler, Sleeps, Web

MODEL = DEFAULT_MODEL.read_bytes()
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def fetcher(**environment: str) -> Fetcher:
    return Fetcher(Client(read_seconds=5), Policy(attempts=3), environment, Sleeps())


def onnx(**more: bytes) -> dict[str, bytes]:
    # A model whose graph holds one tensor of 2 × 3 numbers of type F32.
    tensor = b"\x08\x02\x08\x03\x10\x01\x4a\x18" + bytes(24)
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    settings = {"model_type": "bert", "max_position_embeddings": 512}
    return {"model.onnx": b"\x3a" + bytes([len(graph)]) + graph, "config.json": json.dumps(settings).encode(), **more}


class Hub:
    """The hub's protocol, as far as it is used. ``files`` by path; those in ``large`` are served elsewhere."""

    def __init__(self, web: Web, cdn: Web, files: dict[str, bytes], large: set[str], token: str | None = None) -> None:
        self.web, self.cdn, self.files, self.large, self.token = web, cdn, files, large, token
        cdn.files = {f"/{sha256(files[path])}": files[path] for path in large}
        web.hook = self._answer

    def _answer(self, handler: Handler) -> bool:
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            handler.answer(401, {}, b"")
        elif handler.path.startswith("/api/models/org/repo/revision/"):
            handler.answer(200, {}, json.dumps(self._listing()).encode())
        elif handler.path.startswith("/org/repo/resolve/"):
            self._resolve(handler, handler.path.removeprefix("/org/repo/resolve/").partition("/")[2])
        else:
            handler.answer(404, {}, b"")
        return True

    def _listing(self) -> dict[str, Any]:
        siblings = []
        for path, body in self.files.items():
            lfs = {"lfs": {"sha256": sha256(body), "size": len(body)}} if path in self.large else {}
            siblings.append({"rfilename": path, "size": len(body), **lfs})
        return {"sha": COMMIT, "siblings": siblings}

    def _resolve(self, handler: Handler, path: str) -> None:
        body = self.files.get(path)
        if body is None:
            return handler.answer(404, {}, b"")
        headers = {"X-Repo-Commit": COMMIT}
        if path in self.large:
            headers |= {"X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{sha256(body)}"'}
            return handler.answer(302, {**headers, "Location": f"{self.cdn.url}/{sha256(body)}?signed=1"}, b"")
        return handler.answer(200, headers, body)


@pytest.fixture
def cdn() -> Iterator[Web]:
    with Web() as server:
        yield server


def hub_wanted(web: Web, path: str, **more: Any) -> Wanted:
    return Wanted(HubSource("org/repo", "main", path), endpoint=web.url, **more)


def test_a_url(web: Web, cache: Cache) -> None:
    web.files["/dir/tiny.gguf"] = MODEL
    fetched = fetcher().fetch(Wanted(WebSource(f"{web.url}/dir/tiny.gguf?download=true")), cache)
    assert fetched.files == ("tiny.gguf",)
    assert fetched.sha256 == sha256(MODEL)
    assert fetched.facts.architecture == "llama"
    assert (fetched.folder / "tiny.gguf").read_bytes() == MODEL
    assert web.seen[0].path.endswith("?download=true")


def test_a_pinned_file_that_is_there_needs_no_network(web: Web, cache: Cache) -> None:
    web.files["/tiny.gguf"] = MODEL
    wanted = Wanted(WebSource(f"{web.url}/tiny.gguf"), sha256=sha256(MODEL))
    fetcher().fetch(wanted, cache)
    other = Wanted(WebSource("http://127.0.0.1:9/elsewhere/tiny.gguf"), sha256=sha256(MODEL))
    assert fetcher().fetch(other, cache).fetched == 0


def test_http_credentials(web: Web, cache: Cache) -> None:
    web.files["/tiny.gguf"] = MODEL
    wanted = Wanted(WebSource(f"{web.url}/tiny.gguf"))
    fetcher(HTTP_BEARER_TOKEN="t0k").fetch(wanted, cache)
    fetcher(HTTP_USERNAME="me", HTTP_PASSWORD="pässwort").fetch(wanted, cache)
    told = [seen.headers["authorization"] for seen in web.seen]
    assert told == ["Bearer t0k", "Basic " + base64.b64encode("me:pässwort".encode()).decode()]


def test_a_folder_of_a_web_server_by_its_names(web: Web, cache: Cache) -> None:
    files = onnx()
    web.files |= {f"/m/{name}": body for name, body in files.items()}
    source = WebSource(f"{web.url}/m/")
    fetched = fetcher().fetch(Wanted(source, tuple(files)), cache)
    assert (fetched.facts.format, fetched.facts.parameters, fetched.facts.quantization) == ("onnx", 6, "F32")
    pinned = Wanted(source, tuple(files), sha256=set_digest({name: sha256(body) for name, body in files.items()}))
    assert fetcher().fetch(pinned, cache).sha256 == pinned.sha256 == model_digest(fetched.folder)
    with pytest.raises(DigestMismatch):
        fetcher().fetch(Wanted(source, tuple(files), sha256="0" * 64), cache)
    for names in ((), ("*.onnx",)):
        with pytest.raises(BadSource, match=r"spec\.model\.files"):
            fetcher().fetch(Wanted(source, names), cache)


def test_a_file_of_the_hub(web: Web, cdn: Web, cache: Cache) -> None:
    Hub(web, cdn, {"q/tiny.gguf": MODEL}, {"q/tiny.gguf"}, token="hf_x")
    fetched = fetcher(HF_TOKEN="hf_x").fetch(hub_wanted(web, "q/tiny.gguf"), cache)
    assert fetched.sha256 == sha256(MODEL)
    assert web.seen[0].method == "HEAD"
    assert COMMIT in web.seen[1].path, "the file of the commit that was described"
    assert "authorization" not in cdn.seen[0].headers
    assert (
        fetcher(HF_TOKEN="hf_x", HF_ENDPOINT=web.url)
        .fetch(Wanted(HubSource("org/repo", "main", "q/tiny.gguf")), cache)
        .fetched
        == 0
    )


def test_the_hubs_digest_is_held_against_what_comes(web: Web, cdn: Web, cache: Cache) -> None:
    Hub(web, cdn, {"tiny.gguf": MODEL}, {"tiny.gguf"})
    cdn.files = dict.fromkeys(cdn.files, MODEL[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        fetcher().fetch(hub_wanted(web, "tiny.gguf"), cache)
    with pytest.raises(DigestMismatch):
        fetcher().fetch(hub_wanted(web, "tiny.gguf", sha256="0" * 64), cache)
    assert len(cdn.seen) == 1, "what cannot be right is not fetched"


def test_a_token_that_does_not_do(web: Web, cdn: Web, cache: Cache) -> None:
    Hub(web, cdn, {"tiny.gguf": MODEL}, set(), token="hf_x")
    with pytest.raises(Unauthorized, match="HF_TOKEN") as told:
        fetcher(HF_TOKEN="hf_revoked").fetch(hub_wanted(web, "tiny.gguf"), cache)
    assert "hf_revoked" not in str(told.value)


def test_a_glob_and_a_folder_of_the_hub(web: Web, cdn: Web, cache: Cache) -> None:
    files = {"README.md": b"#", "tiny-Q8_0.gguf": MODEL, "tiny-F16.gguf": MODEL[:1000]}
    Hub(web, cdn, files | {f"onnx/{name}": body for name, body in onnx().items()}, {"tiny-Q8_0.gguf"})
    assert fetcher().fetch(hub_wanted(web, "*Q8_0.gguf"), cache).files == ("tiny-Q8_0.gguf",)
    assert fetcher().fetch(hub_wanted(web, "onnx/"), cache).facts.format == "onnx"
    named = hub_wanted(web, "onnx/", names=("*.onnx",))
    assert fetcher().fetch(named, cache).files == ("model.onnx",)
    with pytest.raises(BadSource, match=r"several models: tiny-F16\.gguf, tiny-Q8_0\.gguf"):
        fetcher().fetch(hub_wanted(web, "*.gguf"), cache)
    with pytest.raises(NotFound):
        fetcher().fetch(hub_wanted(web, "*.bin"), cache)
    with pytest.raises(NoModelFound):
        fetcher().fetch(hub_wanted(web, "*.md"), cache)


def test_all_parts_of_a_split_model(web: Web, cdn: Web, cache: Cache) -> None:
    parts = {f"tiny-0000{n}-of-00003.gguf": MODEL + bytes([n]) for n in (1, 2, 3)}
    web.files |= {f"/{name}": body for name, body in parts.items()}
    fetched = fetcher().fetch(Wanted(WebSource(f"{web.url}/tiny-00001-of-00003.gguf")), cache)
    assert fetched.files == tuple(parts)
    assert fetched.facts.parameters == 3 * 5_164_800
    Hub(web, cdn, parts, set(parts))
    assert fetcher().fetch(hub_wanted(web, "tiny-00002-of-00003.gguf"), cache).fetched == 0
    with pytest.raises(NotFound):
        fetcher().fetch(hub_wanted(web, "tiny-00001-of-00004.gguf"), cache)


def test_an_object(web: Web, cache: Cache) -> None:
    web.files["/models/a b/tiny+1.gguf"] = MODEL
    s3 = S3(web)
    wanted = Wanted(BucketSource("models", "a b/tiny+1.gguf"), endpoint=web.url)
    assert fetcher(**KEYS).fetch(wanted, cache).sha256 == sha256(MODEL)
    s3.sums["a b/tiny+1.gguf"] = base64.b64encode(bytes(32)).decode()
    with pytest.raises(DigestMismatch):
        fetcher(**KEYS, AWS_SESSION_TOKEN=TOKEN).fetch(wanted, cache)
    assert web.seen[-1].headers["x-amz-security-token"] == TOKEN


def test_an_object_is_resumed_if_it_is_the_same_still(web: Web, cache: Cache) -> None:
    web.files["/models/tiny.gguf"] = MODEL
    S3(web)
    web.faults.extend([None, faulty.cut(70_000)])
    wanted = Wanted(BucketSource("models", "tiny.gguf"), endpoint=web.url)
    assert fetcher(**KEYS).fetch(wanted, cache).sha256 == sha256(MODEL)
    assert web.seen[-1].headers["range"] == "bytes=70000-"
    assert web.seen[-1].headers["if-match"] == web.etag("/models/tiny.gguf")


def test_wrong_keys(web: Web, cache: Cache) -> None:
    web.files["/models/tiny.gguf"] = MODEL
    S3(web)
    wanted = Wanted(BucketSource("models", "tiny.gguf"), endpoint=web.url)
    for keys in ({}, KEYS | {"AWS_SECRET_ACCESS_KEY": "wrong"}):
        with pytest.raises(Forbidden):
            fetcher(**keys).fetch(wanted, cache)


def test_the_region_is_found_out(web: Web, cache: Cache) -> None:
    web.files["/models/tiny.gguf"] = MODEL
    S3(web)
    elsewhere = KEYS | {"AWS_REGION": "us-east-1"}
    for path in ("tiny.gguf", ""):
        assert fetcher(**elsewhere).fetch(Wanted(BucketSource("models", path), endpoint=web.url), cache).files


def test_a_folder_and_a_glob_of_a_bucket(web: Web, cache: Cache) -> None:
    web.files |= {f"/models/m/{name}": body for name, body in onnx(extra=b"x").items()}
    web.files |= {"/models/g/tiny-Q8.gguf": MODEL, "/models/g/notes": b"x"}
    S3(web, page=2)
    web.files["/models/m/.cache/hidden"] = b"x"
    folder = fetcher(**KEYS).fetch(Wanted(BucketSource("models", "m/"), endpoint=web.url), cache)
    assert (folder.facts.format, folder.files) == ("onnx", ("config.json", "extra", "model.onnx"))
    glob = Wanted(BucketSource("models", "g/*.gguf"), endpoint=web.url)
    assert fetcher(**KEYS).fetch(glob, cache).files == ("tiny-Q8.gguf",)
    with pytest.raises(NotFound):
        fetcher(**KEYS).fetch(Wanted(BucketSource("models", "none/"), endpoint=web.url), cache)


def test_a_header_is_read_without_the_rest(web: Web, cdn: Web) -> None:
    web.files["/tiny.gguf"] = MODEL + bytes(64 * 1024 * 1024)
    facts = fetcher().inspect(Wanted(WebSource(f"{web.url}/tiny.gguf")))
    assert (facts.architecture, facts.quantization, facts.parameters) == ("llama", "Q8_0", 5_164_800)
    assert facts.size_bytes == len(web.files["/tiny.gguf"])


def test_an_onnx_model_is_known_by_its_settings(web: Web, cdn: Web) -> None:
    graphs = {"onnx/model.onnx": bytes(1000), "onnx/model.onnx_data": bytes(500), "onnx/model_int8.onnx": bytes(300)}
    settings = {"model_type": "bert", "max_position_embeddings": 512}
    files = {"config.json": json.dumps(settings).encode(), "modules.json": b"[]", ".gitattributes": b"x", "notes": b"y"}
    Hub(web, cdn, {f"m/{name}": body for name, body in (graphs | files).items()}, {f"m/{name}" for name in graphs})
    facts = fetcher().inspect(hub_wanted(web, "m/"))
    assert (facts.format, facts.architecture, facts.context_length) == ("onnx", "bert", 512)
    assert facts.capabilities == ("embed",)
    assert facts.size_bytes == 1500 + sum(len(files[name]) for name in ("config.json", "modules.json", "notes"))
    assert not cdn.seen, "the graph stays where it is"
    named = {"model": {"type": "phi3", "context_length": 77, "decoder": {"filename": "b.onnx"}}}
    Hub(web, cdn, {"g/a.onnx": b"", "g/b.onnx": b"", "g/genai_config.json": json.dumps(named).encode()}, set())
    facts = fetcher().inspect(hub_wanted(web, "g/"))
    assert (facts.architecture, facts.context_length, facts.capabilities) == ("phi3", 77, ("generate",))
    Hub(web, cdn, {"h/model.onnx": b"", "h/config.json": b"[" * 9}, set())
    with pytest.raises(NoModelFound, match=r"^config\.json: not JSON"):
        fetcher().inspect(hub_wanted(web, "h/"))


def test_what_is_no_model(web: Web, cache: Cache) -> None:
    web.files["/tiny.gguf"] = b"<html>please log in</html>"
    for ask in (fetcher().inspect, lambda wanted: fetcher().fetch(wanted, cache)):
        with pytest.raises(NoModelFound, match="not a GGUF file"):
            ask(Wanted(WebSource(f"{web.url}/tiny.gguf")))


def test_all_files_must_fit_before_the_first_is_fetched(web: Web, cdn: Web, cache: Cache) -> None:
    parts = {f"tiny-0000{n}-of-00003.gguf": MODEL + bytes([n]) for n in (1, 2, 3)}
    Hub(web, cdn, parts, set(parts))
    with pytest.raises(CacheFull, match=r"15\.9 MiB do not fit: the cache's limit is 11\.4 MiB"):
        fetcher().fetch(hub_wanted(web, "tiny-00001-of-00003.gguf"), cache, limit=12_000_000)
    assert not cdn.seen


def test_a_server_that_is_away_is_asked_again(web: Web, cdn: Web, cache: Cache) -> None:
    with pytest.raises(Unreachable):
        fetcher().fetch(Wanted(HubSource("org/repo", "main", "x.gguf"), endpoint="http://127.0.0.1:9"), cache)
    Hub(web, cdn, {"tiny.gguf": MODEL}, set())
    well, failures = web.hook, [503, 500]

    def hook(handler: Handler) -> bool:
        if failures:
            handler.answer(failures.pop(), {}, b"")
            return True
        assert well is not None
        return well(handler)

    web.hook = hook
    assert fetcher().fetch(hub_wanted(web, "tiny.gguf"), cache).files == ("tiny.gguf",)


CHOSEN: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "all": ("", (), ["a/b.gguf", "a/c.json", "d.gguf"]),
    "a folder": ("a/", (), ["b.gguf", "c.json"]),
    "of a folder": ("a/", ("*.json",), ["c.json"]),
    "a star is no slash": ("*.gguf", (), ["d.gguf"]),
    "in a folder": ("a/*.gguf", (), ["b.gguf"]),
    "a folder by a star": ("*/c.json", (), ["c.json"]),
    "a prefix is no folder": ("a/b/", (), []),
}


@pytest.mark.parametrize(("wanted", "names", "expected"), CHOSEN.values(), ids=CHOSEN)
def test_chosen(wanted: str, names: tuple[str, ...], expected: list[str]) -> None:
    hostile = ["../x.gguf", "a/../x.gguf", "/x.gguf", "a//x.gguf", ""]
    assert sorted(chosen(["a/b.gguf", "a/c.json", "d.gguf", *hostile], wanted, names)) == expected


def test_names_that_collide() -> None:
    with pytest.raises(BadSource, match="same name"):
        chosen(["a/m.gguf", "b/m.gguf"], "*/m.gguf", ())


def test_the_folder_of_a_model_is_made_once(web: Web, cache: Cache, tmp_path: Path) -> None:
    web.files["/tiny.gguf"] = MODEL
    wanted = Wanted(WebSource(f"{web.url}/tiny.gguf"))
    first, second = (fetcher().fetch(wanted, cache).folder for _ in range(2))
    assert first == second
    assert (first / "tiny.gguf").samefile(cache.blob(sha256(MODEL)))
