"""Against a real server that misbehaves."""

import errno
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferno_runtime.fetch import partial as partials
from inferno_runtime.fetch.cache import Cache
from inferno_runtime.fetch.download import Downloader, RemoteFile
from inferno_runtime.fetch.errors import (
    BadSource,
    DigestMismatch,
    DiskFull,
    FetchError,
    Forbidden,
    NotFound,
    RateLimited,
    Rejected,
    ServerError,
    SizeMismatch,
    Stalled,
    Transient,
    Unauthorized,
    Unreachable,
    UnsafeRedirect,
)
from inferno_runtime.fetch.http import Bearer, Client
from inferno_runtime.fetch.partial import Partial
from inferno_runtime.fetch.policy import Policy
from inferno_runtime.fetch.progress import Progress
from tests.unit.fetch import web as faulty
from tests.unit.fetch.web import Fault, Sleeps, Web

BODY = random.Random(7).randbytes(200_000)
OTHER = random.Random(8).randbytes(200_000)


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def remote(web: Web, path: str = "/m.gguf", **known: Any) -> RemoteFile:
    web.files.setdefault(path, BODY)
    return RemoteFile(path.rpartition("/")[2], web.url + path, **known)


def content(cache: Cache, name: str) -> bytes:
    return cache.blob(name).read_bytes()


def test_a_file_is_fetched_once(web: Web, downloader: Downloader, cache: Cache) -> None:
    file = remote(web, sha256=digest(BODY))
    assert downloader.fetch(file) == digest(BODY)
    assert content(cache, digest(BODY)) == BODY
    assert downloader.fetch(file) == digest(BODY)
    assert len(web.seen) == 1
    assert downloader.progress.fetched == len(BODY)
    assert not list((cache.root / "partial").iterdir())


def test_a_file_without_a_digest_is_asked_about_but_not_fetched_again(
    web: Web, downloader: Downloader, cache: Cache
) -> None:
    file = remote(web)
    assert downloader.fetch(file) == digest(BODY)
    assert downloader.fetch(file) == digest(BODY)
    assert web.seen[1].headers["if-none-match"] == web.etag("/m.gguf")
    assert downloader.progress.fetched == len(BODY)
    web.files["/m.gguf"] = OTHER
    assert downloader.fetch(file) == digest(OTHER)


RESUMED: dict[str, list[Fault | None]] = {
    "cut once": [faulty.cut(70_000)],
    "cut thrice": [faulty.cut(70_000), faulty.cut(1), faulty.cut(50_000)],
    "reset": [faulty.reset(100_000)],
    "stalled": [faulty.stall(50_000)],
    "unavailable in between": [faulty.cut(70_000), faulty.status(503), faulty.status(500)],
}


@pytest.mark.parametrize("faults", RESUMED.values(), ids=RESUMED)
def test_goes_on_where_it_was(faults: list[Fault | None], web: Web, downloader: Downloader, cache: Cache) -> None:
    web.faults.extend(faults)
    assert downloader.fetch(remote(web)) == digest(BODY)
    assert content(cache, digest(BODY)) == BODY
    resumed = web.seen[-1]
    assert resumed.headers["range"].startswith("bytes=")
    assert resumed.headers["range"] != "bytes=0-"
    assert resumed.headers["if-range"] == web.etag("/m.gguf")
    assert downloader.progress.done == len(BODY)


BEGUN_AGAIN: dict[str, list[Fault | None]] = {
    "the server knows no ranges": [faulty.cut(70_000), faulty.whole],
    "a range that begins too early": [faulty.cut(70_000), faulty.wrong_start(-10)],
    "a range that begins too late": [faulty.cut(70_000), faulty.wrong_start(10)],
    "a range without being asked": [faulty.wrong_start(5)],
    "no such range": [faulty.cut(70_000), faulty.status(416)],
    "another file, which says so": [faulty.cut(70_000), faulty.other_file(OTHER, '"other"')],
    "another size": [faulty.cut(70_000), faulty.other_file(OTHER[:-1], None)],
}


@pytest.mark.parametrize("faults", BEGUN_AGAIN.values(), ids=BEGUN_AGAIN)
def test_begins_again(faults: list[Fault | None], web: Web, downloader: Downloader, cache: Cache) -> None:
    web.faults.extend(faults)
    assert downloader.fetch(remote(web)) == digest(BODY)
    assert content(cache, digest(BODY)) == BODY
    assert downloader.progress.done == len(BODY)


def test_two_files_put_together_are_noticed_by_their_digest(web: Web, downloader: Downloader, cache: Cache) -> None:
    web.faults.extend([faulty.cut(70_000), faulty.other_file(OTHER, None)])
    assert downloader.fetch(remote(web, sha256=digest(BODY))) == digest(BODY)
    assert content(cache, digest(BODY)) == BODY
    assert web.ranges() == [None, "bytes=70000-", None]


def test_without_validator_and_digest_nothing_is_put_together(web: Web, downloader: Downloader) -> None:
    def anonymous(handler: faulty.Handler, body: bytes) -> None:
        handler.answer(200, {}, body, send=100)

    web.faults.append(anonymous)
    assert downloader.fetch(remote(web)) == digest(BODY)
    assert web.ranges() == [None, None]


PERMANENT: dict[str, tuple[Fault, type[FetchError]]] = {
    "401": (faulty.status(401), Unauthorized),
    "403": (faulty.status(403), Forbidden),
    "404": (faulty.status(404), NotFound),
    "410": (faulty.status(410), NotFound),
    "400": (faulty.status(400), Rejected),
    "compressed": (faulty.status(200, Content_Encoding="gzip"), Rejected),
    "redirect to a file": (faulty.redirect("file:///etc/passwd"), UnsafeRedirect),
    "redirect to ftp": (faulty.redirect("ftp://127.0.0.1/x"), UnsafeRedirect),
    "a redirect to itself": (lambda handler, _: handler.answer(302, {"Location": handler.path}, b""), Rejected),
}


@pytest.mark.parametrize(("fault", "error"), PERMANENT.values(), ids=PERMANENT)
def test_what_no_attempt_heals_is_told_at_once(
    fault: Fault, error: type[FetchError], web: Web, downloader: Downloader, sleeps: Sleeps
) -> None:
    web.faults.extend([fault] * (20 if error is Rejected else 1))
    with pytest.raises(error):
        downloader.fetch(remote(web))
    assert sleeps.seconds == []


GIVEN_UP: dict[str, tuple[Fault, type[Transient]]] = {
    "503": (faulty.status(503), ServerError),
    "429": (faulty.status(429), RateLimited),
    "a connection that ends before its first byte": (faulty.cut(0), Unreachable),
    "a server that says nothing": (faulty.stall(0), Stalled),
}


@pytest.mark.parametrize(("fault", "error"), GIVEN_UP.values(), ids=GIVEN_UP)
def test_gives_up_after_attempts_that_bring_nothing(
    fault: Fault, error: type[FetchError], web: Web, downloader: Downloader, sleeps: Sleeps
) -> None:
    web.faults.extend([fault] * 10)
    with pytest.raises(error):
        downloader.fetch(remote(web))
    assert len(sleeps.seconds) == 3
    assert sleeps.seconds == sorted(sleeps.seconds) or max(sleeps.seconds) > sleeps.seconds[0]


def test_nobody_listens(downloader: Downloader) -> None:
    with pytest.raises(Unreachable, match="refused"):
        downloader.fetch(RemoteFile("m", "http://127.0.0.1:9/m?X-Amz-Signature=secret"))


def test_waits_as_long_as_it_is_asked_to(web: Web, downloader: Downloader, sleeps: Sleeps) -> None:
    web.faults.extend(
        [faulty.status(429, Retry_After="7"), faulty.status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")]
    )
    downloader.fetch(remote(web))
    assert 7 < sleeps.seconds[0] < 9
    assert sleeps.seconds[1] < 3


def test_a_wrong_digest_is_told_and_not_fetched_again(web: Web, downloader: Downloader, cache: Cache) -> None:
    file = remote(web, sha256="0" * 64)
    for _ in range(3):
        with pytest.raises(DigestMismatch, match=digest(BODY)):
            downloader.fetch(file)
    # The server was asked each time, and nothing but the head of its answer read.
    assert downloader.progress.fetched < 2 * len(BODY)
    assert not list(cache.blobs())
    web.files["/m.gguf"] = OTHER
    with pytest.raises(DigestMismatch, match=digest(OTHER)):
        downloader.fetch(file)


def test_a_wrong_size_is_told(web: Web, downloader: Downloader) -> None:
    with pytest.raises(SizeMismatch, match=r"200000 bytes.* to have 5"):
        downloader.fetch(remote(web, size=5))


def test_chunks_have_an_end(web: Web, downloader: Downloader) -> None:
    web.faults.append(faulty.chunked)
    assert downloader.fetch(remote(web)) == digest(BODY)


def test_an_end_that_nobody_could_tell_from_a_cut_needs_a_digest(web: Web, downloader: Downloader) -> None:
    web.faults.extend([faulty.endless, faulty.endless])
    with pytest.raises(BadSource, match="does not say how long"):
        downloader.fetch(remote(web))
    assert downloader.fetch(remote(web, sha256=digest(BODY))) == digest(BODY)


def test_what_was_fetched_before_serves_while_the_server_does_not(web: Web, downloader: Downloader) -> None:
    downloader.fetch(remote(web))
    web.faults.extend([faulty.status(503)] * 10)
    assert downloader.fetch(remote(web)) == digest(BODY)
    web.faults.clear()
    web.faults.append(faulty.status(401))
    with pytest.raises(Unauthorized):
        downloader.fetch(remote(web))


def test_credentials_stay_with_their_host(web: Web, downloader: Downloader) -> None:
    with Web({"/cdn": BODY}) as cdn:
        web.faults.extend([faulty.redirect("/here"), faulty.redirect(f"{cdn.url}/cdn?signature=x")])
        web.files["/here"] = BODY
        downloader.fetch(remote(web, auth=Bearer("s3cret")))
        assert [seen.headers.get("authorization") for seen in web.seen] == ["Bearer s3cret"] * 2
        assert "authorization" not in cdn.seen[0].headers


def test_no_secret_is_logged(web: Web, downloader: Downloader, caplog: pytest.LogCaptureFixture) -> None:
    with Web({"/cdn": BODY}) as cdn:
        caplog.set_level("INFO")
        web.faults.extend([faulty.redirect(f"{cdn.url}/cdn?signature=s3cret")] * 4)
        cdn.faults.extend([faulty.cut(5), faulty.status(503), faulty.reset(7), faulty.status(403)])
        file = remote(web, auth=Bearer("s3cret"), path="/m.gguf")
        with pytest.raises(Forbidden) as told:
            downloader.fetch(RemoteFile(file.name, f"{file.url}?token=s3cret", auth=file.auth))
    assert "s3cret" not in caplog.text + str(told.value) + repr(file)
    assert "again in" in caplog.text


def test_another_process_goes_on_where_one_died(
    web: Web, cache: Cache, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "CHECKPOINT", 60_000)
    web.faults.append(faulty.cut(150_000))

    class Killed(BaseException):
        pass

    def die(_: float) -> None:
        raise Killed

    dying = Downloader(Client(), cache, Progress(), sleep=die)
    with pytest.raises(Killed):
        dying.fetch(remote(web))
    assert downloader.fetch(remote(web)) == digest(BODY)
    start = int((web.ranges()[1] or "").removeprefix("bytes=").removesuffix("-"))
    assert 60_000 <= start <= 150_000


def test_what_was_not_certain_to_survive_is_fetched_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "CHECKPOINT", 100)
    with Partial(cache, "k") as partial:
        partial.restart("e", None, 500)
        partial.append(b"x" * 150)
        partial.append(b"y" * 20)
    with Partial(cache, "k") as partial:
        assert (partial.size, partial.etag, partial.total) == (150, "e", 500)
        assert partial.digest == digest(b"x" * 150)
    with partial.path.open("r+b") as file:
        file.truncate(10)
    with Partial(cache, "k") as partial:
        assert partial.size == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 60_000), max_size=6),
    kinds=st.lists(st.sampled_from(["cut", "reset", "whole", "503", "wrong"]), max_size=6),
    checkpoint=st.sampled_from([1, 5_000, 10**9]),
)
def test_whatever_the_network_does_the_file_is_whole(
    cuts: list[int], kinds: list[str], checkpoint: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    makes: dict[str, Callable[[int], Fault]] = {
        "cut": faulty.cut,
        "reset": faulty.reset,
        "whole": lambda _: faulty.whole,
        "503": lambda _: faulty.status(503),
        "wrong": lambda size: faulty.wrong_start(size - 30_000),
    }
    cache = Cache(tmp_path_factory.mktemp("cache"))
    with Web() as web, pytest.MonkeyPatch.context() as patch:
        patch.setattr(partials, "CHECKPOINT", checkpoint)
        web.faults.extend(makes[kind](size) for kind, size in zip(kinds, cuts, strict=False))
        downloader = Downloader(Client(), cache, Progress(), policy=Policy(attempts=20), sleep=Sleeps())
        assert downloader.fetch(remote(web)) == digest(BODY)
        assert content(cache, digest(BODY)) == BODY
        assert downloader.progress.done == len(BODY)


def test_a_full_disk_is_told(web: Web, downloader: Downloader, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk says so only when it is written to, as one with a quota does."""

    def full(partial: Partial, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Partial, "append", full)
    monkeypatch.setattr(os, "statvfs", lambda _: _Statvfs(10_000))
    with pytest.raises(DiskFull, match=r"195\.3 KiB do not fit: the volume has 9\.8 KiB free"):
        downloader.fetch(remote(web))


class _Statvfs:
    f_frsize = 1

    def __init__(self, free: int) -> None:
        self.f_bavail = free


def test_memory_is_bounded(web: Web, tmp_path: Path) -> None:
    """In a process of its own, which may have 64 MiB more than it has when it begins."""
    import subprocess
    import sys

    size = 300 * 1024 * 1024
    block = bytes(1024 * 1024)

    def large(handler: faulty.Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for _ in range(size // len(block)):
            handler.wfile.write(block)
        return True

    web.hook = large
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from inferno_runtime.fetch.cache import Cache; from inferno_runtime.fetch.download import Downloader, RemoteFile\n"
        "from inferno_runtime.fetch.http import Client; from inferno_runtime.fetch.progress import Progress\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "Downloader(Client(), Cache(Path(sys.argv[2])), Progress()).fetch(RemoteFile('m', sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"{web.url}/m", str(tmp_path / "c")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32 * 1024, "KiB"
