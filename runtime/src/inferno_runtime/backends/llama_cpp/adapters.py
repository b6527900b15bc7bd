"""LoRA adapters on libllama: loaded before the context that uses them, and one of them in use at a time."""

import ctypes
import re
from collections.abc import Sequence
from typing import Any

from inferno_runtime.backends.base import AdapterFile, BackendError, ModelError
from inferno_runtime.backends.llama_cpp.library import Library

_FAILED = re.compile(r"failed to (?:apply lora adapter: |open '.*': )(.*)")
_HINT = re.compile(r" \(hint: .*\)$")


class Adapters:
    """The adapters of a model, which owns their memory."""

    def __init__(self, library: Library, model: Any, files: Sequence[AdapterFile]) -> None:
        """Raises `ModelError` for one that is none, or is not made for this model."""
        self._api = library.api
        self._loaded = [(_load(library, model, file.path), file.scale) for file in files]
        self._current = 0

    def use(self, context: Any, number: int) -> None:
        """Have the context evaluate with an adapter from the next batch on; 0 is none.

        The library lays its buffers out anew after each change.
        """
        if number == self._current:
            return
        pointers, scales = None, None
        if number:
            adapter, scale = self._loaded[number - 1]
            pointers = (self._api.llama_adapter_lora_p_ctypes * 1)(adapter)
            scales = (ctypes.c_float * 1)(scale)
        if self._api.llama_set_adapters_lora(context, pointers, int(number > 0), scales) != 0:
            raise BackendError(f"libllama did not take adapter {number}")
        self._current = number


def _load(library: Library, model: Any, path: str) -> Any:
    api = library.api
    library.recent_errors.clear()
    adapter = api.llama_adapter_lora_init(model, path.encode())
    if not adapter:
        raise ModelError(f"{path}: not a LoRA adapter of this model: {_reason(library.recent_errors)}")
    if api.llama_adapter_get_alora_n_invocation_tokens(adapter):
        raise ModelError(f"{path}: an adapter that only some tokens of a prompt switch on (aLoRA) is not supported")
    return adapter


def _reason(errors: Sequence[str]) -> str:
    """What the library had against the file, among its other complaints."""
    for line in errors:
        if found := _FAILED.search(line):
            return _HINT.sub("", found[1]).strip()
    return "libllama could not load it and gave no reason"
