"""Images on libllama: what the backend evaluates is what libmtmd's own helper does, bit for bit where it can be."""

import ctypes
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inferno_runtime.backends.base import Image, ModelError, Span
from inferno_runtime.backends.llama_cpp.backend import LlamaBackend
from inferno_runtime.backends.llama_cpp.library import load, load_vision
from inferno_runtime.backends.llama_cpp.model import open_model
from inferno_runtime.backends.llama_cpp.vocabulary import LlamaVocabulary
from inferno_runtime.config import EngineConfig
from inferno_runtime.engine.images import Chunk, Gallery, piece, place
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import random_models, random_projectors

BEFORE, AFTER = "What is in this picture?", "Answer in one word."
MARKER = "<__media__>"


@dataclass(frozen=True)
class Kind:
    """A model and a projector for it."""

    model: Path
    projector: Path

    def open(self, **settings: Any) -> LlamaBackend:
        config = EngineConfig(slots=4, context_length=256, flash_attention="off", threads=1, **settings)
        return LlamaBackend(self.model, config, projector=self.projector)


@pytest.fixture(scope="module", params=["llava", "gemma3", "qwen2vl"])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    folder = tmp_path_factory.mktemp(request.param)
    make: Callable[[Path, int], Path] = getattr(random_projectors, request.param)
    model = random_models.qwen2vl(folder / "model.gguf") if request.param == "qwen2vl" else DEFAULT_MODEL
    return Kind(model, make(folder / "mmproj.gguf", random_projectors.width_of(model)))


def drawn(folder: Path, seed: int, width: int = 90, height: int = 60) -> Image:
    """An image of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = folder / f"{seed}-{width}x{height}"
    path.write_bytes(pixels.tobytes())
    return Image(hashlib.sha256(pixels.tobytes() + bytes([width, height])).digest(), width, height, str(path))


class Reader:
    """Evaluates prompts with images on a backend, as the engine does."""

    def __init__(self, backend: LlamaBackend, model: Path) -> None:
        self.backend = backend
        self.vocabulary = LlamaVocabulary(model)
        self.gallery = Gallery(backend.vision)

    def prompt(self, *parts: str | Image) -> tuple[list[int], list[Chunk]]:
        tokens: list[int] = []
        chunks: list[Chunk] = []
        for number, part in enumerate(parts):
            if isinstance(part, str):
                tokens += self.vocabulary.encode(part, add_special=number == 0, parse_special=True)
                continue
            assert self.backend.vision is not None
            layout = self.backend.vision.layout(part.width, part.height)
            placed, own = place(part, layout, len(tokens))
            tokens += placed
            chunks += own
        return tokens, chunks

    def read(
        self, slot: int, tokens: list[int], chunks: list[Chunk], start: int = 0, most: int = 64
    ) -> NDArray[np.float32]:
        """The logits behind the last token."""
        logits = np.empty(0, dtype=np.float32)
        while start < len(tokens):
            chunk, count = piece(start, min(most, len(tokens) - start), chunks)
            embeddings = None if chunk is None else self.gallery.find(chunk) or self.gallery.encode(chunk)
            if chunk is not None and embeddings is not None and embeddings.whole:
                count = chunk.cells
            offset = 0 if chunk is None else start - chunk.start
            wanted = int(start + count == len(tokens))
            span = Span(slot, start, tokens[start : start + count], wanted, embeddings=embeddings, offset=offset)
            logits = self.backend.evaluate([span])
            start += count
        row: NDArray[np.float32] = logits[-1].copy()
        return row

    def say(self, slot: int, tokens: list[int], logits: NDArray[np.float32], count: int) -> list[int]:
        """The likeliest tokens behind a prompt that was read."""
        said: list[int] = []
        for position in range(len(tokens), len(tokens) + count):
            said.append(int(logits.argmax()))
            logits = self.backend.evaluate([Span(slot, position, [said[-1]], 1)])[-1].copy()
        return said


def reference(kind: Kind, images: list[Image], count: int) -> tuple[NDArray[np.float32], list[int]]:
    """What libmtmd's helper makes of BEFORE, the images and AFTER, and the likeliest tokens that follow."""
    library = load()
    api, mtmd = library.api, load_vision()
    model = open_model(library, kind.model, vocabulary_only=False)
    params = api.llama_context_default_params()
    params.n_ctx, params.flash_attn_type = 256, 0
    params.n_threads = params.n_threads_batch = 1
    context = api.llama_init_from_model(model, params)
    vision_params = mtmd.mtmd_context_params_default()
    vision_params.use_gpu, vision_params.n_threads = False, 1
    vision = mtmd.mtmd_init_from_file(str(kind.projector).encode(), model, vision_params)
    assert vision
    bitmaps = (ctypes.c_void_p * len(images))()
    for number, image in enumerate(images):
        data = np.frombuffer(Path(image.path).read_bytes(), dtype=np.uint8)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmaps[number] = mtmd.mtmd_bitmap_init(image.width, image.height, pointer)
    words = (BEFORE + MARKER * len(images) + AFTER).encode()
    text = mtmd.mtmd_input_text(text=words, text_len=len(words), add_special=True, parse_special=True)
    chunks = mtmd.mtmd_input_chunks_init()
    assert mtmd.mtmd_tokenize(vision, chunks, ctypes.byref(text), bitmaps, len(images)) == 0
    end = api.llama_pos(0)
    assert mtmd.mtmd_helper_eval_chunks(vision, context, chunks, 0, 0, 64, True, ctypes.byref(end)) == 0
    size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    def logits() -> NDArray[np.float32]:
        return np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), shape=(size,)).copy()

    first, said = logits(), []
    row = first
    for position in range(end.value, end.value + count):
        said.append(int(row.argmax()))
        token = (api.llama_token * 1)(said[-1])
        batch = api.llama_batch_get_one(token, 1)
        places = (api.llama_pos * 1)(position)
        batch.pos = places
        assert api.llama_decode(context, batch) == 0
        row = logits()
    mtmd.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(vision)
    api.llama_free(context)
    api.llama_model_free(model)
    return first, said


def near(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.abs(one - other).max() < 0.001 * np.abs(other).max())


@pytest.mark.parametrize("most", [64, 5], ids=["together", "in pieces"])
def test_an_image_is_evaluated_as_the_library_itself_does(kind: Kind, tmp_path: Path, most: int) -> None:
    images = [drawn(tmp_path, 1), drawn(tmp_path, 2, 60, 90)]
    want, want_said = reference(kind, images, 8)
    backend = kind.open()
    reader = Reader(backend, kind.model)
    tokens, chunks = reader.prompt(BEFORE, *images, AFTER)
    got = reader.read(0, tokens, chunks, most=most)
    assert near(got, want)
    assert reader.say(0, tokens, got, 8) == want_said
    backend.close()


def test_another_image_says_something_else(kind: Kind, tmp_path: Path) -> None:
    backend = kind.open()
    reader = Reader(backend, kind.model)
    rows = [
        reader.read(slot, *reader.prompt(BEFORE, drawn(tmp_path, seed), AFTER)) for slot, seed in enumerate((1, 2, 1))
    ]
    assert near(rows[0], rows[2])
    assert not near(rows[0], rows[1])
    backend.close()


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_cells_of_an_image_can_be_copied_saved_and_cut(kind: Kind, tmp_path: Path, layout: str) -> None:
    backend = kind.open(kv_layout=layout)
    reader = Reader(backend, kind.model)
    tokens, chunks = reader.prompt(BEFORE, drawn(tmp_path, 1), drawn(tmp_path, 2), AFTER)
    want = reader.read(0, tokens, chunks)
    want_said = reader.say(0, tokens, want, 6)
    end = chunks[-1].end
    assert backend.copy(0, 1)
    data = backend.save(0)
    assert data is not None
    backend.clear(0)
    assert backend.restore(2, data)
    for slot, length in ((1, end), (2, end + 2), (1, chunks[0].end)):
        backend.cut(slot, length)
        got = reader.read(slot, tokens, chunks, start=length)
        assert near(got, want)
        assert reader.say(slot, tokens, got, 6) == want_said
    backend.close()


def test_sequences_with_and_without_images_decode_together(kind: Kind, tmp_path: Path) -> None:
    backend = kind.open()
    reader = Reader(backend, kind.model)
    prompts = [
        reader.prompt(BEFORE, drawn(tmp_path, 1), AFTER),
        reader.prompt(BEFORE),
        reader.prompt(drawn(tmp_path, 2), AFTER, drawn(tmp_path, 3), AFTER),
    ]
    alone = []
    for tokens, chunks in prompts:
        alone.append(reader.say(0, tokens, reader.read(0, tokens, chunks), 6))
        backend.clear(0)
    said: list[list[int]] = [[] for _ in prompts]
    rows = [reader.read(slot, tokens, chunks) for slot, (tokens, chunks) in enumerate(prompts)]
    for step in range(6):
        for slot, row in enumerate(rows):
            said[slot].append(int(row.argmax()))
        spans = [Span(slot, len(tokens) + step, [said[slot][-1]], 1) for slot, (tokens, _) in enumerate(prompts)]
        rows = list(backend.evaluate(spans).copy())
    assert said == alone
    backend.close()


def test_there_is_progress_while_an_image_is_encoded(kind: Kind, tmp_path: Path) -> None:
    backend = kind.open()
    assert backend.vision is not None
    told: list[None] = []
    backend.vision.on_progress = lambda: told.append(None)
    backend.vision.layout(90, 60)
    assert not told
    quiet = backend.vision.encode(drawn(tmp_path, 1), 0)
    assert told
    backend.close()
    again = kind.open()
    assert again.vision is not None
    assert np.array_equal(again.vision.encode(drawn(tmp_path, 1), 0).rows, quiet.rows)
    again.close()


def test_what_is_no_projector_of_the_model_is_refused_in_a_line(tmp_path: Path) -> None:
    wide = random_projectors.llava(tmp_path / "wide.gguf", random_projectors.width_of(DEFAULT_MODEL) + 32)
    (tmp_path / "text").write_text("not a GGUF file")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(wide.read_bytes()[:-5000])
    for path in (wide, tmp_path / "text", tmp_path / "missing.gguf", cut, DEFAULT_MODEL):
        with pytest.raises(ModelError) as caught:
            Kind(DEFAULT_MODEL, path).open()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(28, 28), (28, 2800), (2800, 28), (2048, 2048), (4000, 1000), (29, 57)])
def test_images_of_any_proportions_have_a_layout(kind: Kind, size: tuple[int, int]) -> None:
    backend = kind.open()
    assert backend.vision is not None
    layout = backend.vision.layout(*size)
    assert sum(part for part in layout if isinstance(part, int)) >= 1
    backend.close()
