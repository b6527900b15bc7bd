"""Images that a request names by an address: a client must not reach through the server what it could not reach itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from inferno_runtime.config import ServerConfig
from inferno_runtime.server.remote import RemoteImages, Unfetched, is_public_address

IMAGE = b"\x89PNG..."


class Site:
    """A server on the loopback, which answers what each path is given to."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        self.asked.append(path)
        self.heads.append(head)
        writer.write(self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        if path != "/hangs":
            writer.close()


def ok(body: bytes = IMAGE) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def moved(where: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    it = Site()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


def remote(*hosts: str, public: Callable[[str], bool] | None = lambda address: True, **limits: int) -> RemoteImages:
    return RemoteImages(ServerConfig(image_hosts=hosts, **limits), public)  # type: ignore[arg-type]


async def refusal(images: RemoteImages, url: str) -> str:
    with pytest.raises(Unfetched) as caught:
        await images.fetch(url)
    return str(caught.value)


async def test_an_image_is_fetched_without_anything_of_the_servers_own() -> None:
    async with site() as there:
        there.answers["/a.png?size=2"] = ok()
        url = f"http://localhost:{there.port}/a.png?size=2#top"
        assert await remote(f"localhost:{there.port}").fetch(url) == IMAGE
        assert "authorization" not in there.heads[0].lower()
        assert "cookie" not in there.heads[0].lower()


@pytest.mark.parametrize(
    ("hosts", "host", "allowed"),
    [
        ((), "localhost", False),
        (("localhost",), "localhost", False),  # for the ports of http and https alone
        (("localhost:{port}",), "localhost", True),
        (("LOCALHOST:{port}",), "LocalHost", True),
        (("*:{port}",), "localhost", True),
        (("*.localhost:{port}",), "localhost", False),
        (("127.0.0.1:{port}",), "localhost", False),
        (("127.0.0.1:{port}",), "127.0.0.1", True),
        (("host:{port}",), "localhost", False),
        (("ocalhost:{port}",), "localhost", False),
    ],
)
async def test_only_hosts_that_are_named_are_asked(hosts: tuple[str, ...], host: str, allowed: bool) -> None:
    async with site() as there:
        there.answers["/a"] = ok()
        images = remote(*(rule.format(port=there.port) for rule in hosts))
        url = f"http://{host}:{there.port}/a"
        if allowed:
            assert await images.fetch(url) == IMAGE
        else:
            assert "imageHosts" in await refusal(images, url)
            assert not there.asked


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://localhost/a",
        "gopher://localhost/a",
        "http:///a",
        "//localhost/a",
        "",
        "http://user:secret@localhost/a",
        "http://localhost:99999/a",
        "http://[::1/a",
        "http://localhost:x/a",
    ],
)
async def test_other_urls_are_refused(url: str) -> None:
    assert "URL" in await refusal(remote("*"), url)


async def test_what_is_connected_to_is_checked_and_not_the_name() -> None:
    async with site() as there:
        there.answers["/a"] = ok()
        for host in (
            "localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::ffff:127.0.0.1]",
            "[::1]",
            "0.0.0.0",
        ):
            await refusal(remote(f"*:{there.port}", public=None), f"http://{host}:{there.port}/a")
        assert not there.asked


async def test_a_redirect_is_checked_like_the_first_address() -> None:
    async with site() as there, site() as secret:
        secret.answers["/secret"] = ok(b"secret")
        here = f"localhost:{there.port}"
        there.answers |= {
            "/away": moved(f"http://localhost:{secret.port}/secret"),
            "/file": moved("file:///etc/passwd"),
            "/near": moved("/near-by"),
            "/near-by": ok(),
            "/round": moved("/round"),
            "/nowhere": moved(""),
        }
        images = remote(here)
        assert "imageHosts" in await refusal(images, f"http://{here}/away")
        assert "URL" in await refusal(images, f"http://{here}/file")
        assert await images.fetch(f"http://{here}/near") == IMAGE
        assert "redirects" in await refusal(images, f"http://{here}/round")
        await refusal(images, f"http://{here}/nowhere")
        assert not secret.asked


async def test_a_name_that_changes_its_meaning_gains_nothing() -> None:
    # The address that was checked is the one that is connected to: it is asked for once.
    seen: list[str] = []

    def once(address: str) -> bool:
        seen.append(address)
        return len(seen) == 1

    async with site() as there:
        there.answers["/a"] = ok()
        assert await remote(f"127.0.0.1:{there.port}", public=once).fetch(f"http://127.0.0.1:{there.port}/a") == IMAGE
    assert seen == ["127.0.0.1"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"800\r\n"
        + bytes(2048)
        + b"\r\n800\r\n"
        + bytes(2048),
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000),
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=["long", "long-in-chunks", "long-to-the-end", "error", "cut", "not-http", "long-head"],
)
async def test_answers_have_their_bounds(answer: bytes) -> None:
    async with site() as there:
        there.answers["/a"] = answer
        await refusal(remote(f"*:{there.port}", max_image_bytes=1024), f"http://localhost:{there.port}/a")


async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    async with site() as there:
        there.answers["/hangs"] = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
        images = remote(f"*:{there.port}", image_timeout_seconds=1)
        assert "in time" in await refusal(images, f"http://localhost:{there.port}/hangs")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a9fe:a9fe",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "nonsense",
        "127.1",
    ],
)
def test_private_addresses_are_known(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public_address(address)
