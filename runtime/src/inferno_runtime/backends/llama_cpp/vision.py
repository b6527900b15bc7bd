"""Images on libmtmd, libllama's library for them: what a projector makes of an image's chunks."""

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferno_runtime.backends.base import BackendError, Embeddings, Image, Layout, ModelError
from inferno_runtime.backends.llama_cpp.library import Library, load_vision
from inferno_runtime.backends.llama_cpp.model import explain
from inferno_runtime.models.gguf import BadGguf, read_header

# Their chunks depend on what stands before the image in the prompt, and not on the image alone.
_UNSUPPORTED = frozenset({"deepseek4v", "hunyuanvl"})
_LARGEST = 2048  # pixels a side, by which the room for a chunk is measured
_IMAGE = 1  # mtmd_input_chunk_type
_TOLD = 32  # nodes of a graph, after which there is progress: a few layers
_LAYOUTS = 256  # sizes whose layouts are remembered


class LlamaVision:
    """`Vision` over libmtmd."""

    def __init__(self, library: Library, model: Any, path: Path, *, threads: int, gpu: bool) -> None:
        """Load the projector for a `llama_model *` and try it. Raises `ModelError`."""
        _refuse_unsupported(path)
        self._library = library
        self._width = library.api.llama_model_n_embd_inp(model)
        api = self._api = load_vision()
        params = api.mtmd_context_params_default()
        params.use_gpu = gpu
        params.print_timings = False
        params.n_threads = threads
        self.on_progress: Callable[[], None] = lambda: None
        self._nodes = 0  # of graphs that were evaluated, or are just going to be
        self._callback = library.api.ggml_backend_sched_eval_callback(self._on_node)  # the library has a bare pointer
        params.cb_eval = self._callback
        params.warmup = True  # buffers are laid out, and a projector that cannot run shows it now
        library.recent_errors.clear()
        self._context = api.mtmd_init_from_file(str(path).encode(), model, params)
        if not self._context:
            raise ModelError(f"{path}: not a projector of this model: {explain(library.recent_errors)}")
        self._layouts: OrderedDict[tuple[int, int], Layout] = OrderedDict()
        self._chunks: Any = None  # of the image that was encoded last, preprocessed
        self._image: Image | None = None
        if not api.mtmd_support_vision(self._context):
            raise ModelError(f"{path}: a projector for sound; this server reads images only")
        self._two_dimensional = bool(api.mtmd_decode_use_mrope(self._context))
        self._whole = bool(api.mtmd_decode_use_non_causal(self._context, None))
        cells = [part for part in self.layout(_LARGEST, _LARGEST) if isinstance(part, int)]
        self.whole_cells = max(cells) if self._whole else 0  # that must lie in one batch

    def layout(self, width: int, height: int) -> Layout:
        size = (width, height)
        if size not in self._layouts:
            with self._tokenized(width, height, None) as chunks:
                self._layouts[size] = [self._part(chunk) for chunk in self._each(chunks)]
            if len(self._layouts) > _LAYOUTS:
                self._layouts.popitem(last=False)
        return self._layouts[size]

    def encode(self, image: Image, chunk: int) -> Embeddings:
        self._prepare(image)
        pointer = [each for each in self._each(self._chunks) if self._is_image(each)][chunk]
        self._library.recent_errors.clear()
        if self._api.mtmd_encode_chunk(self._context, pointer) != 0:
            raise BackendError(f"the image could not be encoded: {explain(self._library.recent_errors)}")
        cells = self._api.mtmd_input_chunk_get_n_tokens(pointer)
        output = self._api.mtmd_get_output_embd(self._context)
        rows = np.ctypeslib.as_array(output, shape=(cells, self._width)).copy()
        positions = self._api.mtmd_input_chunk_get_n_pos(pointer)
        grid = self._grid(pointer, cells) if self._two_dimensional else None
        return Embeddings(rows, positions, grid, self._whole)

    def _on_node(self, _: Any, asks: bool, __: Any) -> bool:
        """Whether the library is to tell when a node is evaluated, which it asks of each; or that one is."""
        if not asks:
            self.on_progress()
            return True  # go on
        self._nodes += 1
        return self._nodes % _TOLD == 0

    def close(self) -> None:
        """Free the projector, before its model."""
        self._forget()
        self._api.mtmd_free(self._context)

    def _prepare(self, image: Image) -> None:
        """Have the chunks of an image at hand; those of the last one are, since an image's follow one another."""
        if self._image is not None and self._image.digest == image.digest:
            return
        self._forget()
        with self._tokenized(image.width, image.height, _pixels(image), keep=True) as chunks:
            self._chunks = chunks
        self._image = image

    def _forget(self) -> None:
        if self._image is not None:
            self._api.mtmd_input_chunks_free(self._chunks)
            self._image = None

    @contextmanager
    def _tokenized(
        self, width: int, height: int, pixels: NDArray[np.uint8] | None, *, keep: bool = False
    ) -> Iterator[Any]:
        """The `mtmd_input_chunks *` of an image, or of any of its size where there are no pixels."""
        api = self._api
        data = None if pixels is None else pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        part = api.mtmd_input_part(None, api.mtmd_bitmap_init(width, height, data))
        parts = (ctypes.POINTER(api.mtmd_input_part) * 1)(ctypes.pointer(part))
        chunks = api.mtmd_input_chunks_init()
        done = False
        self._library.recent_errors.clear()
        try:
            if api.mtmd_tokenize_from_parts(self._context, chunks, parts, 1, False) != 0:
                reason = explain(self._library.recent_errors)
                raise BackendError(f"an image of {width} × {height} pixels cannot be taken apart: {reason}")
            yield chunks
            done = True
        finally:
            api.mtmd_bitmap_free(part.bitmap)
            if not (keep and done):
                api.mtmd_input_chunks_free(chunks)

    def _each(self, chunks: Any) -> Iterator[Any]:
        for number in range(self._api.mtmd_input_chunks_size(chunks)):
            yield self._api.mtmd_input_chunks_get(chunks, number)

    def _is_image(self, chunk: Any) -> bool:
        return bool(self._api.mtmd_input_chunk_get_type(chunk) == _IMAGE)

    def _part(self, chunk: Any) -> list[int] | int:
        if self._is_image(chunk):
            return int(self._api.mtmd_input_chunk_get_n_tokens(chunk))
        count = ctypes.c_size_t()
        tokens = self._api.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return [int(tokens[index]) for index in range(count.value)]

    def _grid(self, chunk: Any, cells: int) -> NDArray[np.int32]:
        tokens = self._api.mtmd_input_chunk_get_tokens_image(chunk)
        grid = np.empty((4, cells), dtype=np.int32)
        for cell in range(cells):
            place = self._api.mtmd_image_tokens_get_decoder_pos(tokens, 0, cell)
            grid[:, cell] = place.t, place.y, place.x, place.z
        return grid


def _pixels(image: Image) -> NDArray[np.uint8]:
    """An image's pixels. Raises `BackendError` where they are no longer there, or are others."""
    size = 3 * image.width * image.height
    try:
        with open(image.path, "rb") as file:
            pixels = np.frombuffer(file.read(size + 1), dtype=np.uint8)
    except OSError as error:
        raise BackendError(f"the image cannot be read: {error.strerror}") from error
    if len(pixels) != size:
        raise BackendError(f"an image of {image.width} × {image.height} pixels has {len(pixels)} bytes, not {size}")
    return pixels


def _refuse_unsupported(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = read_header(file)
    except (OSError, BadGguf) as error:
        raise ModelError(f"{path}: {error}") from error
    kind = header.text("clip.vision.projector_type") or header.text("clip.projector_type")
    if kind in _UNSUPPORTED:
        raise ModelError(f"{path}: projectors of the type {kind} are not supported")
