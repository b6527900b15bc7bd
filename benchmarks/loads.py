"""The loads: who asks what, and when. Everything follows from a fixed seed, so every server gets the same.

A word is a token with every prompt here, see `benchmarks.model`; a chat template adds some ten tokens a message.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a user; `pause` is in seconds since the answer before."""

    prompt: str
    max_tokens: int
    pause: float = 0.0
    texts: tuple[str, ...] = ()  # to be turned into vectors, in place of a prompt to be answered


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who asks one thing after the other. `kind` keeps apart whose times are looked at separately."""

    turns: tuple[Turn, ...]
    start: float = 0.0  # seconds since the load began
    system: str = ""
    remembers: bool = False  # whether the turns before stand in the next request
    greedy: bool = False
    kind: str = "user"


class Writer:
    """Writes prompts: random words of the model's own."""

    def __init__(self, words: list[str], seed: str) -> None:
        self.random = random.Random(seed)  # of the text alone; not for secrets
        self._words = words

    def text(self, length: int) -> str:
        return " ".join(self.random.choices(self._words, k=length))


Users = Callable[[Writer, float], tuple[User, ...]]


@dataclass(frozen=True, slots=True)
class Load:
    """A load, and the server that it needs. `users` takes what share of the load to make, 1 or less."""

    name: str
    title: str
    what: str  # one sentence for the report
    slots: int
    context: int  # tokens per slot
    users: Users
    neighbour: bool = False  # whether another process keeps half of the cores busy
    embeds: bool = False  # whether vectors are asked for, of an encoder
    at_once: bool = False  # whether all requests, which have nothing in common, come at the same time

    def make(self, words: list[str], share: float = 1.0, seed: str = "") -> tuple[User, ...]:
        """The users; the same seed makes the same ones."""
        return self.users(Writer(words, f"{self.name}/{seed}"), share)


def _chat(users: int, each: int) -> Users:
    def make(writer: Writer, share: float) -> tuple[User, ...]:
        count = max(1, round(each * share))
        return tuple(User(tuple(Turn(writer.text(90), 64) for _ in range(count))) for _ in range(users))

    return make


def _shared_prefix(users: int) -> Users:
    def make(writer: Writer, share: float) -> tuple[User, ...]:
        system = writer.text(800)
        return tuple(User((Turn(writer.text(20), 32),), system=system) for _ in range(users))

    return make


def _conversations(writer: Writer, share: float) -> tuple[User, ...]:
    turns = max(3, round(4 * share))
    return tuple(
        User(tuple(Turn(writer.text(120), 32) for _ in range(turns)), start=0.05 * number, remembers=True)
        for number in range(24)
    )


def _long_beside_streams(writer: Writer, share: float) -> tuple[User, ...]:
    streams = [User((Turn(writer.text(60), 192),), kind="stream") for _ in range(6)]
    return (*streams, User((Turn(writer.text(3000), 16),), start=1.5, kind="long"))


def _retrieval(writer: Writer, share: float) -> tuple[User, ...]:
    count = max(1, round(share))
    system = writer.text(60)
    return tuple(
        User(tuple(Turn(writer.text(writer.random.randint(1200, 1800)), 24) for _ in range(count)), system=system)
        for _ in range(8)
    )


def _burst(writer: Writer, share: float) -> tuple[User, ...]:
    return tuple(User((Turn(writer.text(60), 32),)) for _ in range(64))


def _partial(writer: Writer, share: float) -> tuple[User, ...]:
    count = max(1, round(4 * share))

    def turn() -> Turn:
        return Turn(writer.text(60), writer.random.randint(8, 128), pause=writer.random.uniform(0, 1.5))

    return tuple(User(tuple(turn() for _ in range(count))) for _ in range(12))


def _repetition(writer: Writer, share: float) -> tuple[User, ...]:
    count = max(1, round(2 * share))
    return (User(tuple(Turn(writer.text(60), 768) for _ in range(count)), greedy=True),)


def _embeddings(writer: Writer, share: float) -> tuple[User, ...]:
    count = max(1, round(30 * share))

    def turn() -> Turn:
        return Turn("", 0, texts=tuple(writer.text(writer.random.randint(5, 60)) for _ in range(16)))

    return tuple(User(tuple(turn() for _ in range(count))) for _ in range(8))


LOADS = {
    load.name: load
    for load in (
        Load("chat1", "chat, 1 user", "90 words in, 64 tokens out, one request after the other.", 8, 1024, _chat(1, 8)),
        Load("chat8", "chat, 8 users", "The same by 8 users at a time.", 8, 1024, _chat(8, 4)),
        Load("chat32", "chat, 32 users", "The same by 32 users at a time.", 32, 1024, _chat(32, 3)),
        Load(
            "shared8",
            "shared prefix, 8 users",
            "8 requests at once with the same 800 words before 20 of their own, 32 tokens out; nobody has seen them before.",
            8,
            2048,
            _shared_prefix(8),
        ),
        Load("shared32", "shared prefix, 32 users", "The same with 32 requests.", 32, 2048, _shared_prefix(32)),
        Load(
            "conversations",
            "conversations",
            "24 users on 8 slots; 4 turns each of 120 words, which carry all the turns before, 32 tokens out.",
            8,
            2048,
            _conversations,
        ),
        Load(
            "long",
            "a long prompt beside streams",
            "A prompt of 3,000 words arrives while 6 answers are being streamed.",
            8,
            4096,
            _long_beside_streams,
        ),
        Load(
            "rag",
            "retrieval",
            "8 users; 1,200 to 1,800 words, nearly all of them different, and 24 tokens out.",
            8,
            4096,
            _retrieval,
        ),
        Load("burst", "burst", "64 requests at once on 32 slots, 32 tokens out.", 32, 1024, _burst, at_once=True),
        Load(
            "partial",
            "partial occupancy",
            "12 users who pause between requests, on 32 slots; answers of 8 to 128 tokens.",
            32,
            1024,
            _partial,
        ),
        Load(
            "repetition",
            "repetition",
            "Greedy answers of 768 tokens that run in circles: what speculation is for.",
            8,
            1024,
            _repetition,
        ),
        Load(
            "busy1",
            "chat, 1 user, busy neighbour",
            "chat1 while another process keeps half of the cores busy.",
            8,
            1024,
            _chat(1, 8),
            neighbour=True,
        ),
        Load(
            "busy8",
            "chat, 8 users, busy neighbour",
            "chat8 while another process keeps half of the cores busy.",
            8,
            1024,
            _chat(8, 2),
            neighbour=True,
        ),
        Load(
            "embeddings",
            "embeddings",
            "8 clients, each with one batch of 16 texts of 5 to 60 words after the other, of an encoder of 22 million parameters.",
            8,
            512,
            _embeddings,
            embeds=True,
        ),
        Load("memory", "memory", "8 requests at once on a fresh server, then its memory.", 8, 2048, _chat(8, 1)),
    )
}
QUICK = ("chat1", "chat8", "chat32", "shared8", "long")
