"""A cache that several processes share, some of which die."""

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferno_runtime.fetch import eviction
from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.download import Downloader, RemoteFile
from inferno_runtime.fetch.errors import CacheFull, CacheUnusable, DiskFull
from inferno_runtime.fetch.eviction import candidates, make_room, used
from inferno_runtime.fetch.http import Client
from inferno_runtime.fetch.progress import Progress
from inferno_runtime.models.source import hold
from tests.unit.fetch.web import Handler, Web

BODY = random.Random(3).randbytes(3_000_000)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def put(cache: Cache, body: bytes, *, user: str | None = None, days: float = 0, held: bool = False) -> str:
    """A file of a model, used ``days`` ago."""
    digest = sha256(body)
    scratch = cache.root / "partial" / "scratch"
    scratch.write_bytes(body)
    cache.adopt(scratch, digest)
    folder = cache.publish({"m.gguf": digest})
    then = time.time() - days * 86_400
    if user:
        cache.use(user, folder)
        for key, record in list(cache.records("uses")):
            if record["user"] == user:
                cache.write("uses", key, record | {"at": then})
    os.utime(cache.root / "blobs" / f"{digest}.json", (then, then))
    if not held:
        cache.release(digest)
    return digest


def slow(web: Web, piece: int, seconds: float) -> None:
    """Serves everything in pieces, with a pause after each."""

    def hook(handler: Handler) -> bool:
        if handler.headers.get("If-None-Match") == web.etag(handler.path):
            handler.answer(304, {}, b"")  # to one that asks when another has fetched it already
            return True
        body = web.files[handler.path]
        start = handler.start() or 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start))
        handler.send_header("ETag", web.etag(handler.path))
        handler.end_headers()
        for position in range(start, len(body), piece):
            handler.wfile.write(body[position : position + piece])
            time.sleep(seconds)
        return True

    web.hook = hook


SCRIPT = """
import sys
from pathlib import Path
from inferno_runtime.fetch import partial
partial.CHECKPOINT = 100_000
from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.download import Downloader, RemoteFile
from inferno_runtime.fetch.http import Client
from inferno_runtime.fetch.progress import Progress
progress = Progress()
print(Downloader(Client(), Cache(Path(sys.argv[1])), progress).fetch(RemoteFile("m", sys.argv[2])), progress.fetched)
"""


def process(cache: Cache, url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cache.root), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_several_processes_fetch_once(web: Web, cache: Cache) -> None:
    web.files["/m"] = BODY
    slow(web, 300_000, 0.02)
    others = [process(cache, f"{web.url}/m") for _ in range(4)]
    said = [other.communicate() for other in others]
    assert [out.split()[0] for out, _ in said] == [sha256(BODY)] * 4, said
    assert sum(int(out.split()[1]) for out, _ in said) == len(BODY)
    assert cache.blob(sha256(BODY)).read_bytes() == BODY


def test_another_takes_over_when_one_is_killed(web: Web, cache: Cache) -> None:
    web.files["/m"] = BODY
    slow(web, 50_000, 0.02)
    first, second = process(cache, f"{web.url}/m"), process(cache, f"{web.url}/m")
    deadline = time.monotonic() + 60
    while not any(record.get("durable", 0) >= 500_000 for _, record in cache.records("partial")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    [holder] = [each for each in (first, second) if _holds_partial(each, cache)]
    waiter = second if holder is first else first
    holder.send_signal(signal.SIGKILL)
    out, err = waiter.communicate()
    holder.communicate()
    assert out.split()[0] == sha256(BODY), err
    assert int(out.split()[1]) <= len(BODY) - 500_000, "the waiter went on where the other had been"
    assert cache.blob(sha256(BODY)).read_bytes() == BODY


def _holds_partial(each: "subprocess.Popen[str]", cache: Cache) -> bool:
    folder = Path(f"/proc/{each.pid}/fd")
    return any(str(cache.root / "partial") in os.readlink(link) for link in folder.iterdir())


def test_a_blob_that_was_changed_is_fetched_again(web: Web, cache: Cache) -> None:
    web.files["/m"] = BODY
    remote = RemoteFile("m", f"{web.url}/m", sha256=sha256(BODY))
    folders = []
    for spoil in (False, True, False):
        Downloader(Client(), cache, Progress()).fetch(remote)
        folders.append(cache.publish({"m": sha256(BODY)}))
        assert (folders[-1] / "m").read_bytes() == BODY
        if spoil:
            path = cache.blob(sha256(BODY))
            path.chmod(0o644)
            path.write_bytes(b"spoilt" + BODY[6:])
    assert len(web.seen) == 2
    os.utime(cache.blob(sha256(BODY)))  # touched only: what it holds is right
    assert cache.has(sha256(BODY))
    assert len(web.seen) == 2


def test_a_file_that_two_sources_have_in_common_is_kept_once(web: Web, cache: Cache) -> None:
    web.files |= {"/a": BODY, "/b": BODY}
    kept = set()
    for path in ("/a", "/b"):
        digest = Downloader(Client(), cache, Progress()).fetch(RemoteFile("m", web.url + path))
        kept.add((cache.publish({"m": digest}), cache.blob(digest).stat().st_ino))
    assert len(kept) == 1, "what serves the first still lies where it did"
    assert not list((cache.root / "partial").iterdir())


def test_what_no_resource_uses_goes_first(cache: Cache) -> None:
    uses: dict[str, dict[str, Any]] = {
        "new": {"days": 1},
        "old": {"days": 9},
        "used": {"user": "a", "days": 5},
        "used long ago": {"user": "b", "days": 50},
        "just used": {"user": "c"},
    }
    digests = {name: put(cache, name.encode() * 1000, **how) for name, how in uses.items()}
    order = [candidate.digest for candidate in candidates(cache, time.time())]
    assert order == [digests[name] for name in ("old", "new", "used long ago", "used")]


def test_only_as_much_goes_as_is_needed(cache: Cache) -> None:
    first, second, third = (put(cache, bytes([n]) * 1000, days=10 - n) for n in (1, 2, 3))
    make_room(cache, 1500, limit=3500)
    assert [cache.has(each) for each in (first, second, third)] == [False, True, True]
    assert used(cache) == 2000
    assert len(list((cache.root / "snapshots").glob("*.json"))) == 2, "its snapshot has gone, too"


def test_a_model_that_a_process_holds_stays(cache: Cache) -> None:
    digest = put(cache, b"x" * 1000, days=10)
    [snapshot] = [path for path in (cache.root / "snapshots").iterdir() if path.is_dir()]
    reader, writer = multiprocessing.Pipe()
    other = multiprocessing.get_context("fork").Process(target=_hold, args=(snapshot / "m.gguf", writer))
    other.start()
    reader.recv()
    with pytest.raises(
        CacheFull, match=r"1000 B do not fit: the cache's limit is 1\.5 KiB, and 1000 B of it are in use"
    ):
        make_room(cache, 1000, limit=1500)
    assert cache.blob(digest).exists()
    other.kill()
    other.join()
    make_room(cache, 1000, limit=1500)
    assert not cache.blob(digest).exists()


def _hold(path: Path, ready: Any) -> None:
    hold(path)
    ready.send(True)
    time.sleep(60)


def test_what_was_just_fetched_stays_until_its_pod_has_opened_it(cache: Cache) -> None:
    put(cache, b"x" * 1000, user="a")
    with pytest.raises(CacheFull):
        make_room(cache, 1000, limit=1500)


def test_a_beginning_that_nobody_goes_on_with_goes_first(cache: Cache) -> None:
    kept = put(cache, b"x" * 1000, days=10)
    for name in ("left", "under-way"):
        (cache.root / "partial" / name).write_bytes(b"y" * 1000)
    with cache.lock("under-way"):
        make_room(cache, 1000, limit=3000)
    assert [path.name for path in (cache.root / "partial").iterdir()] == ["under-way"]
    assert cache.has(kept)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    monkeypatch.setattr(eviction, "_RESERVE", 0)

    def set_free(size: int) -> None:
        monkeypatch.setattr(eviction, "_free", lambda cache: size - used(cache))

    return set_free


def test_a_full_volume_makes_room_as_well(cache: Cache, free: Callable[[int], None]) -> None:
    old = put(cache, b"x" * 1000, days=10)
    free(1500)
    make_room(cache, 1000, limit=None)
    assert not cache.has(old)
    with pytest.raises(DiskFull, match=r"2\.0 KiB do not fit: the volume has 1\.5 KiB free"):
        make_room(cache, 2000, limit=None)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheUnusable, match="cannot be written"):
        Cache(tmp_path / "file")


def test_records_that_are_nonsense_are_none(cache: Cache) -> None:
    (cache.root / "uses" / "x.json").write_text("{")
    (cache.root / "uses" / "y.json").write_text('["z"]')
    (cache.root / "uses" / "z.json").write_text('{"snapshot": 5, "at": "never"}')
    put(cache, b"x" * 10, days=1)
    assert len(candidates(cache, time.time())) == 1
