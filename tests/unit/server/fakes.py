"""An engine without a model: bytes are tokens, and what it says is told to it."""

import asyncio
import hashlib
import re
from array import array
from collections.abc import Sequence
from typing import Any

from inferno_runtime.backends.base import Image, ModelError, ModelInfo, Pair, Tokenizer
from inferno_runtime.config import AdapterConfig, ModelConfig, ServedModel, Task
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.engine.images import Chunk
from inferno_runtime.engine.request import Embedded, Finished, FinishReason, Priority, Sampling, Scores, Started
from inferno_runtime.worker.client import EngineState
from inferno_runtime.worker.encoding import Encoding
from inferno_runtime.worker.errors import EngineError, GrammarRefused, ImageRefused
from inferno_runtime.worker.generation import Generation
from inferno_runtime.worker.images import Pixels, Shown
from inferno_runtime.worker.stats import EngineStats

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
IM_START, IM_END, BOS = 256, 257, 258
DIMENSIONS = 4  # of the vectors of one that embeds
CELLS = 9  # of an image
_NUMBERS: dict[Task, int] = {"generate": 0, "embed": DIMENSIONS, "rerank": 1}
_CONTROL = {"<|im_start|>": IM_START, "<|im_end|>": IM_END, "<s>": BOS}


class ByteTokenizer:
    """A token for each byte, and three control tokens."""

    def __init__(self, chat_template: str | None = CHATML, add_bos: bool = False) -> None:
        self.task: Task = "generate"
        self.pieces: Sequence[bytes] = [bytes([byte]) for byte in range(256)] + [b"", b"", b""]
        self.end_tokens = frozenset({IM_END})
        self.controls = {token: spelling for spelling, token in _CONTROL.items()}
        self.control_spellings = frozenset(_CONTROL)
        self.bos = "<s>"
        self.eos = "<|im_end|>"
        self.infill: tuple[int, int, int] | None = None
        self.context_train = 512
        self.chat_template = chat_template
        self.add_bos = add_bos

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokens = [BOS] if add_special and self.add_bos else []
        parts = re.split("(" + "|".join(map(re.escape, _CONTROL)) + ")", text) if parse_special else [text]
        for part in parts:
            tokens += [_CONTROL[part]] if parse_special and part in _CONTROL else list(part.encode())
        return tokens

    def spelling(self, token: int) -> str:
        return {number: text for text, number in _CONTROL.items()}.get(token, chr(token) if token < 128 else "")

    def encode_pair(self, query: str, document: str) -> Pair:
        first = [*query.encode(), BOS]
        return Pair([*first, *document.encode()], len(first))

    def decode(self, tokens: Sequence[int]) -> str:
        spellings = {token: spelling for spelling, token in _CONTROL.items()}
        return b"".join(
            spellings[token].encode() if token in spellings else self.pieces[token] for token in tokens
        ).decode("utf-8", "surrogateescape")


class FakeEngine:
    """Says `says` to every prompt, a token for each turn of the loop; or holds still until `resume` is set."""

    def __init__(
        self,
        name: str = "fake",
        *,
        says: str = "Hello, world",
        aliases: tuple[str, ...] = (),
        template: str | None = None,
        task: Task = "generate",
        adapters: tuple[AdapterConfig, ...] = (),
    ) -> None:
        source = ModelConfig(source="file:///fake.gguf", aliases=aliases, chat_template=template, adapters=adapters)
        self.served = ServedModel(name=name, model=source)
        self.name = name
        self.context = 512
        self.vocabulary = ByteTokenizer()
        self.tokenizer: Tokenizer = self.vocabulary
        self.info = ModelInfo("gguf", "fake", "none", 0, 0, 512, 259, task, _NUMBERS[task])
        self.state = EngineState.STARTING
        self.state_reason = ""
        self.stats = EngineStats()
        self.tuning: dict[str, Any] = {}
        self.draft: str | None = None
        self.fingerprint = "fp_fake"
        self.alive = True
        self.says: str | bytes = says
        self.refuses: EngineError | None = None  # raised by submit
        self.refuses_grammar = ""  # what is wrong with any
        self.fails: EngineError | None = None  # raised by reading, after all was said
        self.fails_to_load: ModelError | None = None
        self.resume = asyncio.Event()
        self.resume.set()
        self.submitted: list[dict[str, object]] = []
        self.cancelled: list[int] = []
        self.shown: list[Shown] = []
        self.overlooked: list[Shown] = []
        self.pauses: list[tuple[int, bool]] = []  # what was said about whom: pause, or go on
        self.going: dict[int, asyncio.Event] = {}  # by sequence, unset while it is paused
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        if self.fails_to_load:
            raise self.fails_to_load
        self.state = EngineState.READY

    async def check(self, constraint: Constraint) -> None:
        if self.refuses_grammar:
            raise GrammarRefused(self.refuses_grammar)

    async def submit(
        self,
        prompt: list[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        min_tokens: int = 0,
        priority: Priority = Priority.NORMAL,
        constraint: Constraint | None = None,
        pieces: Sequence[bytes] | None = None,
        deadline: float | None = None,
        token_timeout: float | None = None,
        top_scores: int | None = None,
        score_prompt: bool = False,
        adapter: int = 0,
        images: Sequence[Chunk] = (),
    ) -> Generation:
        if self.refuses:
            raise self.refuses
        self.submitted.append(
            {
                "prompt": prompt,
                "max_tokens": max_tokens,
                "sampling": sampling,
                "stop": stop,
                "ignore_eos": ignore_eos,
                "min_tokens": min_tokens,
                "priority": priority,
                "constraint": constraint,
                "adapter": adapter,
                "images": list(images),
            }
        )
        number = len(self.submitted)
        generation = Generation(
            number,
            len(prompt),
            self.tokenizer.pieces if pieces is None else pieces,
            stop,
            self.cancelled.append,
            deadline,
            pause=self._pause,
            token_timeout=token_timeout,
            scored=top_scores is not None,
        )
        if top_scores is not None:
            said = self.says.encode() if isinstance(self.says, str) else self.says
            generation.on_scores(scores(number, said, top_scores))
            if score_prompt:
                generation.on_scores(scores(number, prompt[1:], top_scores, prompt=True))
        self.going[number] = asyncio.Event()
        self.going[number].set()
        task = asyncio.create_task(self._say(generation, max_tokens))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return generation

    async def look(self, data: bytes, most_pixels: int) -> Shown:
        """An image is what it says: its size, and then anything."""
        width, height = map(int, data.split()[:2])
        if width * height > most_pixels:
            raise ImageRefused(f"it has more than {most_pixels} pixels")
        pixels = Pixels()
        pixels.image = Image(hashlib.sha256(data).digest(), width, height, pixels.path)
        shown = Shown(pixels, [[ord("[")], CELLS, [ord("]")]])
        self.shown.append(shown)
        return shown

    def overlook(self, shown: Shown) -> None:
        self.overlooked.append(shown)
        shown.pixels.close()

    async def embed(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        dimensions: int,
        priority: Priority = Priority.NORMAL,
        deadline: float | None = None,
        seconds: Sequence[int] = (),
    ) -> Encoding:
        if self.refuses:
            raise self.refuses
        self.submitted.append(
            {
                "inputs": [list(tokens) for tokens in inputs],
                "dimensions": dimensions,
                "priority": priority,
                "seconds": list(seconds),
            }
        )
        encoding = Encoding(len(self.submitted), self.cancelled.append, deadline)
        task = asyncio.create_task(self._encode(encoding, inputs, dimensions))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return encoding

    def _pause(self, number: int, paused: bool) -> None:
        self.pauses.append((number, paused))
        if paused:
            self.going[number].clear()
        else:
            self.going[number].set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.state = EngineState.STOPPED

    async def _say(self, generation: Generation, max_tokens: int) -> None:
        tokens = self.says.encode() if isinstance(self.says, str) else self.says
        generation.on_started(Started(generation.id, 0, 0.0, 0.0))
        for token in tokens[:max_tokens]:
            await self.resume.wait()
            await self.going[generation.id].wait()
            generation.on_tokens((token,))
            await asyncio.sleep(0)
        await self.resume.wait()
        if self.fails:
            generation.fail(self.fails)
        reason = FinishReason.LENGTH if len(tokens) > max_tokens else FinishReason.STOP
        generation.on_finished(Finished(generation.id, reason))

    async def _encode(self, encoding: Encoding, inputs: Sequence[Sequence[int]], dimensions: int) -> None:
        await self.resume.wait()
        if self.fails:
            encoding.fail(self.fails)
        vectors = array("f", [number for tokens in inputs for number in vector(tokens)[:dimensions]])
        encoding.on_answer(Embedded(encoding.id, FinishReason.STOP, None, vectors.tobytes(), 0.0, 0.0))


def scores(number: int, tokens: Sequence[int], top: int, *, prompt: bool = False) -> Scores:
    """How likely the engine holds tokens to be; it would have liked the next numbers better."""
    likeliest = array("i", [(token + place + 1) % 256 for token in tokens for place in range(top)])
    values = array("f", [-0.5 - place for _ in tokens for place in range(top)])
    chosen = array("f", [-1.0 for _ in tokens])
    return Scores(number, prompt, chosen.tobytes(), likeliest.tobytes(), values.tobytes())


def vector(tokens: Sequence[int]) -> list[float]:
    """What the engine makes of an input; 32-bit floats hold it exactly."""
    return [float(len(tokens)), float(tokens[0]), float(tokens[-1]), 0.5]
