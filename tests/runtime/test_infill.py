"""Filling in: models that have tokens for it, in each format."""

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest

from inferno_runtime.backends import load_tokenizer
from inferno_runtime.models.source import DEFAULT_MODEL
from tests.runtime import onnx_twins
from tests.runtime.process import ServerProcess

PREFIX, SUFFIX, MIDDLE = 300, 301, 302  # any tokens will do: what is tested is where they stand


def with_infill(path: Path) -> Path:
    """The tiny model with metadata that names three of its tokens."""
    reader = gguf.GGUFReader(DEFAULT_MODEL)
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for name, token in (("fim_pre", PREFIX), ("fim_suf", SUFFIX), ("fim_mid", MIDDLE)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def onnx_with_infill(folder: Path) -> Path:
    """Its twin, three of whose added tokens are named as other models' are."""
    model = onnx_twins.decoder(DEFAULT_MODEL, folder)
    spec_path = model / "tokenizer.json"
    spec = json.loads(spec_path.read_text())
    vocab = spec["model"]["vocab"]
    spelled = {token: text for text, token in vocab.items()}
    for name, token in (("prefix", PREFIX), ("suffix", SUFFIX), ("middle", MIDDLE)):
        spelling = f"<|fim_{name}|>"
        vocab[spelling] = vocab.pop(spelled[token])
        spec["model"]["merges"] = [
            merge
            for merge in spec["model"]["merges"]
            if spelled[token] not in (("".join(merge) if isinstance(merge, list) else merge.replace(" ", "")), *merge)
        ]
        spec.setdefault("added_tokens", []).append(
            {
                "id": token,
                "content": spelling,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        )
    spec_path.write_text(json.dumps(spec))
    return model


@pytest.fixture(scope="module", params=["gguf", "onnx"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("infill")
    return with_infill(folder / "infill.gguf") if request.param == "gguf" else onnx_with_infill(folder)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(str(model), "--name", "inferno-tiny") as process:
        yield process


def test_a_suffix_is_given_to_the_model_as_its_own_tokens_say(server: ServerProcess, model: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    assert tokenizer.infill == (PREFIX, SUFFIX, MIDDLE)

    def tokens(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False, parse_special=True)

    greedy = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "logprobs": 2}
    filled = server.complete("Once upon", suffix=" was a king.", **greedy).json()
    spelled = [PREFIX, *tokens("Once upon"), SUFFIX, *tokens(" was a king."), MIDDLE]
    raw = server.complete(spelled, **greedy).json()
    assert filled["choices"] == raw["choices"]
    assert filled["usage"]["prompt_tokens"] == raw["usage"]["prompt_tokens"] == len(spelled)
    assert filled["choices"] != server.complete("Once upon", **greedy).json()["choices"]


def test_in_a_stream_and_for_several_prompts(server: ServerProcess) -> None:
    several = server.complete(["Once", "One"], suffix=" end.", temperature=0, max_tokens=5).json()
    assert [choice["index"] for choice in several["choices"]] == [0, 1]
    assert "data: [DONE]" in server.complete("Once", suffix=" end.", max_tokens=5, stream=True).text
    refused = server.complete("Once", suffix=" end.", echo=True)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "echo")
