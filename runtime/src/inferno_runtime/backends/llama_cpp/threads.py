"""Threads that stay, where ggml would start and end some for every batch."""

import ctypes
from types import ModuleType
from typing import Any

_MOST_THREADS = 512  # GGML_MAX_N_THREADS


class _Params(ctypes.Structure):
    """`ggml_threadpool_params`."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * _MOST_THREADS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class ThreadPool:
    """ggml's threads, as many as may ever be wanted; a batch takes as many of them as the context asks for.

    Between two batches they sleep and do not spin: the core is the server's meanwhile.
    """

    def __init__(self, api: ModuleType, most: int) -> None:
        """api: the module of libllama's functions, with the CPU's kernels loaded; most: threads."""
        library = api._lib
        params_of = library.ggml_threadpool_params_default
        params_of.argtypes, params_of.restype = [ctypes.c_int], _Params
        new = _function(library, b"ggml_threadpool_new", ctypes.c_void_p, ctypes.POINTER(_Params))
        self._free = _function(library, b"ggml_threadpool_free", None, ctypes.c_void_p)
        self._attach = library.llama_attach_threadpool
        self._attach.argtypes, self._attach.restype = [ctypes.c_void_p] * 3, None
        params = params_of(min(most, _MOST_THREADS))
        params.poll = 0
        self._pool = new(ctypes.byref(params)) if new and self._free else None

    def attach(self, context: Any) -> None:
        """Evaluate a `llama_context`'s batches with these threads."""
        if self._pool:
            self._attach(context, self._pool, None)

    def close(self) -> None:
        """End the threads; the contexts that they were attached to are gone by now."""
        if self._pool:
            self._free(self._pool)
            self._pool = None


def _function(library: ctypes.CDLL, name: bytes, result: Any, *arguments: Any) -> Any:
    """A function of the CPU's library, which libllama itself is not linked with; None where it has none."""
    by_name, address_of = library.ggml_backend_reg_by_name, library.ggml_backend_reg_get_proc_address
    by_name.argtypes, by_name.restype = [ctypes.c_char_p], ctypes.c_void_p
    address_of.argtypes, address_of.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
    registry = by_name(b"CPU")
    address = address_of(registry, name) if registry else None
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None
