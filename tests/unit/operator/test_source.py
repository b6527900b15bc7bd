"""Sources as both judges see them; that the API server agrees is tested on one."""

import re

import pytest

from inferno_operator.api import source as rules
from inferno_operator.api.types import ModelSpec
from inferno_runtime.sources import (
    DOTS_MESSAGE,
    MAX_LENGTH,
    SCHEME_MESSAGE,
    BucketSource,
    ClaimSource,
    FileSource,
    HubSource,
    ImageSource,
    Source,
    WebSource,
    parse_source,
    shape_message,
    split_parts,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4
UNDERSTOOD: dict[str, Source] = {
    "pvc://models/tiny.gguf": ClaimSource("models", "tiny.gguf"),
    "pvc://models/llama/3/q8.gguf": ClaimSource("models", "llama/3/q8.gguf"),
    "pvc://team.models-2/a..b/...gguf": ClaimSource("team.models-2", "a..b/...gguf"),
    "file:///opt/models/tiny.gguf": FileSource("/opt/models/tiny.gguf"),
    "file:///modèle.gguf": FileSource("/modèle.gguf"),
    "https://example.com/tiny.gguf": WebSource("https://example.com/tiny.gguf"),
    "https://example.com:8443/a%20b/tiny.gguf?download=true": WebSource(
        "https://example.com:8443/a%20b/tiny.gguf?download=true"
    ),
    "https://[::1]/": WebSource("https://[::1]/"),
    "hf://org/repo/file.gguf": HubSource("org/repo", "main", "file.gguf"),
    "hf://org/repo@v1.0/a/b-*.gguf": HubSource("org/repo", "v1.0", "a/b-*.gguf"),
    "hf://org/repo/": HubSource("org/repo", "main", ""),
    "hf://org/repo/onnx/": HubSource("org/repo", "main", "onnx/"),
    "s3://models/llama/q8.gguf": BucketSource("models", "llama/q8.gguf"),
    "s3://models/llama/": BucketSource("models", "llama/"),
    "oci://registry.example/models/tiny:1": ImageSource("registry.example/models/tiny:1", ""),
    "oci://localhost:5000/tiny:v1/gguf/tiny.gguf": ImageSource("localhost:5000/tiny:v1", "gguf/tiny.gguf"),
    f"oci://r.example/tiny@{DIGEST}/t.gguf": ImageSource(f"r.example/tiny@{DIGEST}", "t.gguf"),
    f"oci://r.example/tiny:1@{DIGEST}": ImageSource(f"r.example/tiny:1@{DIGEST}", ""),
}
REFUSED = {
    "": SCHEME_MESSAGE,
    "tiny.gguf": SCHEME_MESSAGE,
    "/models/tiny.gguf": SCHEME_MESSAGE,
    "http://example.com/tiny.gguf": SCHEME_MESSAGE,
    "PVC://models/tiny.gguf": SCHEME_MESSAGE,
    "https:tiny": SCHEME_MESSAGE,
    **dict.fromkeys(
        (
            "pvc://models",
            "pvc://models/",
            "pvc:///tiny.gguf",
            "pvc://Models/tiny.gguf",
            "pvc://-models/tiny.gguf",
            "pvc://models//tiny.gguf",
            "pvc://models/tiny.gguf/",
            "pvc://models/tiny.gguf?download=1",
            "pvc://models/tiny%2egguf",
            "pvc://models/my tiny.gguf",
            "pvc://models/tiny.gguf\n",
            "pvc://models/*.gguf",
        ),
        shape_message("pvc"),
    ),
    **dict.fromkeys(("file://models/tiny.gguf", "file:///"), shape_message("file")),
    **dict.fromkeys(
        (
            "https://example.com",
            "https://me:secret@example.com/tiny.gguf",
            "https://example.com/tiny.gguf#part",
            "https://example.com/*.gguf",
            "https://example.com/a//b",
            "https://example.com/folder/?x=1",
            "https:///tiny.gguf",
        ),
        shape_message("https"),
    ),
    **dict.fromkeys(
        ("hf://repo", "hf://repo/file.gguf/..x?", "hf://org/repo", "hf://org/repo@/f", "hf://org/repo@a/b%/f"),
        shape_message("hf"),
    ),
    **dict.fromkeys(("s3://Models/x", "s3://models", "s3://models//x", "s3://m/x"), shape_message("s3")),
    **dict.fromkeys(
        ("oci://registry.example/tiny", "oci://registry.example/tiny@sha256:12", "oci://Registry/tiny:1/"),
        shape_message("oci"),
    ),
    "pvc://models/../tiny.gguf": DOTS_MESSAGE,
    "pvc://models/a/./tiny.gguf": DOTS_MESSAGE,
    "file:///opt/..": DOTS_MESSAGE,
    "https://example.com/a/../b": DOTS_MESSAGE,
    "https://example.com/..?x": DOTS_MESSAGE,
    "hf://org/repo/../x": DOTS_MESSAGE,
}


@pytest.mark.parametrize(("text", "source"), UNDERSTOOD.items(), ids=UNDERSTOOD)
def test_understood(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert broken_rules(text) == []


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=[repr(text) for text in REFUSED])
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$") as refusal:
        parse_source(text)
    assert str(refusal.value) == message
    if not text.endswith("\n"):  # where Python's $ and RE2's differ
        assert message in broken_rules(text)


def broken_rules(text: str) -> list[str]:
    """The messages of the CEL rules that ``text`` breaks, as far as they can be read without CEL."""
    broken = []
    for rule in rules.SOURCE_RULES:
        match = re.fullmatch(
            r"(?:!self\.startsWith\('(?P<start>.*?)'\) \|\| )?(?P<not>!?)self\.matches\('(?P<re>.*)'\)", rule["rule"]
        )
        assert match is not None, rule
        applies = text.startswith(match["start"] or "")
        found = re.search(match["re"].replace("\\\\", "\\"), text) is not None
        if applies and found == bool(match["not"]):
            broken.append(rule["message"])
    return broken


def test_too_long() -> None:
    with pytest.raises(ValueError, match="at most 1024"):
        parse_source("pvc://models/" + "x" * MAX_LENGTH)


FILES = {
    ("hf://org/repo/", ("*.onnx",)): None,
    ("s3://models/x/", ()): None,
    ("https://h.example/x/", ("model.onnx",)): None,
    ("https://h.example/x/", ()): rules.WEB_FOLDER_MESSAGE,
    ("https://h.example/x/", ("*.onnx",)): rules.WEB_FOLDER_MESSAGE,
    ("hf://org/repo/x.gguf", ("x.gguf",)): rules.FILES_MESSAGE,
    ("pvc://models/x", ("x.gguf",)): rules.FILES_MESSAGE,
}


@pytest.mark.parametrize(("given", "message"), FILES.items(), ids=map(str, FILES))
def test_files(given: tuple[str, tuple[str, ...]], message: str | None) -> None:
    source, files = given
    given_model = {"source": source, "files": files}
    if message is None:
        assert ModelSpec.model_validate(given_model).files == files
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelSpec.model_validate(given_model)


SPLIT = {
    "m-00001-of-00002.gguf": ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"],
    "m-00002-of-00002.gguf": ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"],
    "m.gguf": None,
    "m-00003-of-00002.gguf": None,
    "m-00000-of-00002.gguf": None,
    "m-1-of-2.gguf": None,
}


@pytest.mark.parametrize(("name", "parts"), SPLIT.items(), ids=SPLIT)
def test_split(name: str, parts: list[str] | None) -> None:
    assert split_parts(name) == parts
