"""Headers that are well, and headers that mean harm."""

import contextlib
import io
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_runtime.models import gguf as reader
from inferno_runtime.models.errors import ModelError
from inferno_runtime.models.files import main_file
from inferno_runtime.models.gguf import BadGguf, read_header
from inferno_runtime.models.inspect import inspect
from inferno_runtime.models.source import DEFAULT_MODEL

HEADER = DEFAULT_MODEL.read_bytes()[:200_000]


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(*keys: bytes, tensors: int = 0, version: int = 3, count: int | None = None) -> bytes:
    counted = len(keys) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, tensors, counted) + b"".join(keys)


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, length: int, value: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + value


def test_agrees_with_the_reference() -> None:
    """That of the format's authors."""
    found = read_header(io.BytesIO(DEFAULT_MODEL.read_bytes()))
    reference = gguf.GGUFReader(DEFAULT_MODEL)
    for name, value in found.metadata.items():
        field = reference.get_field(name)
        assert field is not None
        assert field.contents() == (pytest.approx(value) if isinstance(value, float) else value)
    assert found.parameters == sum(int(tensor.n_elements) for tensor in reference.tensors)
    tokens = reference.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    assert found.vocabulary == len(tokens.contents())


BAD = {
    "empty": (b"", r"not a GGUF file \(it is empty\)"),
    "another format": (b"PK\x03\x04" + bytes(100), "not a GGUF file$"),
    "a page": (b"<html>", "not a GGUF file$"),
    "too old": (header(version=1), "version 1"),
    "from the future": (header(version=77), "version 77"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3), "big-endian"),
    "cut off": (HEADER[:5_000], "ends within its header"),
    "an unknown type": (header(key(b"k", 99, b"")), "type 99"),
    "a list of an unknown type": (header(key(b"k", 9, array(99, 1))), "list of type 99"),
    "a list of lists": (header(key(b"k", 9, array(9, 1))), "list of type 9"),
    "more keys than there are": (header(count=2**63), "9223372036854775808 keys"),
    "more tensors than there are": (header(tensors=2**40), "1099511627776 tensors"),
    "a text without end": (header(text(b"k") + struct.pack("<IQ", 8, 2**60)), "bytes of text"),
    "a list without end": (header(key(b"k", 9, array(8, 2**62))), "4611686018427387904 items"),
    "a long list of nothing": (header(key(b"k", 9, array(4, 10**7))), "ends within its header"),
    "a key as long as the file": (header(text(b"k" * 2_000_000) + struct.pack("<I", 4)), "a key is longer"),
    "a tensor of many dimensions": (
        header(text(b"t") + struct.pack("<I", 10**9), tensors=1, count=0),
        "1000000000 dimensions",
    ),
    "a tensor larger than memory": (
        header(text(b"t") + struct.pack("<IQQIQ", 2, 2**40, 2**40, 0, 0), tensors=1, count=0),
        "larger than any memory",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_bad(data: bytes, message: str) -> None:
    with pytest.raises(BadGguf, match=message):
        read_header(io.BytesIO(data))


class Endless(io.RawIOBase):
    """A file of gibibytes that is never there."""

    def __init__(self, start: bytes, rest: Callable[[int], bytes] = bytes) -> None:
        self._start, self._rest = io.BytesIO(start), rest
        self.given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._start.read(size) or self._rest(size)
        self.given += len(data)
        return data


LIMIT = 4 * 2**20  # in place of the real one, which takes a while to reach
HOGS = {
    "texts": header(key(b"tokenizer.ggml.tokens", 9, array(8, 10**7))),
    "a text": header(text(b"k") + struct.pack("<IQ", 8, 3 * 2**20), count=16_000),
    "keys": header(count=16_000),
    "tensors": header(tensors=250_000),
}


@pytest.mark.parametrize("start", HOGS.values(), ids=HOGS)
def test_reads_and_keeps_no_more_than_it_may(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HEADER_LIMIT", LIMIT)
    stream = Endless(start)
    tracemalloc.start()
    try:
        read_header(stream)  # type: ignore[arg-type]
    except BadGguf:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert stream.given <= LIMIT
    assert peak < 2 * LIMIT


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_told_or_does_no_harm(data: st.DataObject) -> None:
    damaged = bytearray(HEADER)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(4, 60_000))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(BadGguf):
        read_header(io.BytesIO(bytes(damaged[:end])))


def write(path: Path, architecture: str, **fields: object) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in fields.items():
        full = name.replace("__", ".").replace("ARCH", architecture)
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, value)  # type: ignore[arg-type]
    writer.add_tensor("w", np.zeros((4, 8), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_a_model_can(tmp_path: Path) -> None:
    coder = inspect(
        write(
            tmp_path / "coder.gguf",
            "qwen2",
            tokenizer__ggml__model="gpt2",
            tokenizer__ggml__tokens=["a", "<|fim_prefix|>", "<|fim_suffix|>"],
            tokenizer__chat_template="{% for m in messages %}{{ m }}{% endfor %}",
        )
    )
    assert (coder.capabilities, coder.tokenizer, coder.vocabulary_size) == (("generate", "chat", "fillIn"), "gpt2", 3)
    assert (coder.parameters, coder.quantization) == (32, "F16")
    encoder = inspect(write(tmp_path / "e.gguf", "bert", ARCH__pooling_type=1, ARCH__attention__causal=False))
    assert encoder.capabilities == ("embed",)
    reranker = inspect(write(tmp_path / "r.gguf", "bert", ARCH__pooling_type=4, ARCH__attention__causal=False))
    assert reranker.capabilities == ("rerank",)
    folder = tmp_path / "vision"
    folder.mkdir()
    write(folder / "m.gguf", "qwen2vl")
    write(folder / "mmproj-f16.gguf", "clip", clip__has_vision_encoder=True)
    assert inspect(folder).capabilities == ("generate", "vision")


def test_what_memory_follows_from(tmp_path: Path) -> None:
    plain = inspect(
        write(
            tmp_path / "a.gguf",
            "llama",
            ARCH__block_count=4,
            ARCH__embedding_length=64,
            ARCH__attention__head_count=8,
            ARCH__attention__head_count_kv=2,
        )
    )
    assert plain.cache_values_per_token == 4 * 2 * (8 + 8)
    uneven = inspect(
        write(
            tmp_path / "b.gguf",
            "llama",
            ARCH__block_count=3,
            ARCH__embedding_length=64,
            ARCH__attention__head_count=[8, 8, 8],
            ARCH__attention__head_count_kv=[2, 0, 4],
            ARCH__attention__key_length=16,
            ARCH__attention__value_length=4,
        )
    )
    assert uneven.cache_values_per_token == 6 * 20
    recurrent = inspect(
        write(
            tmp_path / "c.gguf",
            "mamba",
            ARCH__block_count=2,
            ARCH__embedding_length=8,
            ARCH__attention__head_count=0,
            ARCH__ssm__conv_kernel=4,
            ARCH__ssm__inner_size=16,
            ARCH__ssm__state_size=5,
        )
    )
    assert (recurrent.cache_values_per_token, recurrent.state_bytes) == (0, 4 * 2 * (3 * 16 + 16 * 5))


NAMES: dict[str, tuple[list[str], str]] = {
    "one": (["a/m.gguf"], "a/m.gguf"),
    "beside others": (["README.md", "m.gguf", "mmproj-m.gguf"], "m.gguf"),
    "split": (["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"], "m-00001-of-00002.gguf"),
    "onnx": (["config.json", "onnx/model.onnx", "onnx/model_int8.onnx"], "onnx/model.onnx"),
    "of several graphs the whole one": (
        ["decoder_model.onnx", "decoder_model_merged.onnx"],
        "decoder_model_merged.onnx",
    ),
    "a graph in a folder of its own": (["cpu/int4/model.onnx", "tokenizer.json"], "cpu/int4/model.onnx"),
    "gguf before onnx": (["model.onnx", "m.gguf"], "m.gguf"),
    "only the file": (["blob"], "blob"),
    "a name that says nothing": (["m.bin"], "m.bin"),
}


@pytest.mark.parametrize(("names", "expected"), NAMES.values(), ids=NAMES)
def test_the_file_of_a_folder(names: list[str], expected: str) -> None:
    random.shuffle(names)
    assert main_file(Path(), names) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "neither a GGUF nor an ONNX"),
        (["a.txt", "b"], "neither a GGUF nor an ONNX"),
        (["a.gguf", "b.gguf"], "several GGUF models"),
        (["a.onnx", "b.onnx"], "several ONNX models"),
        (["m-00002-of-00002.gguf"], "neither"),
    ],
)
def test_no_file_of_a_folder(names: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        main_file(Path(), names)


def test_a_part_is_missing(tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(HEADER)
    with pytest.raises(ModelError, match=r"m-00002-of-00002\.gguf: no such file"):
        inspect(tmp_path)
