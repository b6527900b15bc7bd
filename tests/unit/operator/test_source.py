import pytest

from inferno_operator.api.source import DOTS_MESSAGE, SHAPE_MESSAGE, ClaimSource, FileSource, Source, parse_source

UNDERSTOOD = {
    "pvc://models/tiny.gguf": ClaimSource("models", "tiny.gguf"),
    "pvc://models/llama/3/q8.gguf": ClaimSource("models", "llama/3/q8.gguf"),
    "pvc://team.models-2/a..b/...gguf": ClaimSource("team.models-2", "a..b/...gguf"),
    "file:///opt/models/tiny.gguf": FileSource("/opt/models/tiny.gguf"),
    "file:///modèle.gguf": FileSource("/modèle.gguf"),
}
REFUSED = {
    "": SHAPE_MESSAGE,
    "tiny.gguf": SHAPE_MESSAGE,
    "/models/tiny.gguf": SHAPE_MESSAGE,
    "hf://org/repo/file.gguf": SHAPE_MESSAGE,
    "https://example.com/tiny.gguf": SHAPE_MESSAGE,
    "PVC://models/tiny.gguf": SHAPE_MESSAGE,
    "pvc://models": SHAPE_MESSAGE,
    "pvc://models/": SHAPE_MESSAGE,
    "pvc:///tiny.gguf": SHAPE_MESSAGE,
    "pvc://Models/tiny.gguf": SHAPE_MESSAGE,
    "pvc://-models/tiny.gguf": SHAPE_MESSAGE,
    "pvc://models//tiny.gguf": SHAPE_MESSAGE,
    "pvc://models/tiny.gguf/": SHAPE_MESSAGE,
    "pvc://models/tiny.gguf?download=1": SHAPE_MESSAGE,
    "pvc://models/tiny%2egguf": SHAPE_MESSAGE,
    "pvc://models/my tiny.gguf": SHAPE_MESSAGE,
    "pvc://models/tiny.gguf\n": SHAPE_MESSAGE,
    "pvc://models/*.gguf": SHAPE_MESSAGE,
    "file://models/tiny.gguf": SHAPE_MESSAGE,
    "file:///": SHAPE_MESSAGE,
    "pvc://models/../tiny.gguf": DOTS_MESSAGE,
    "pvc://models/a/./tiny.gguf": DOTS_MESSAGE,
    "file:///opt/..": DOTS_MESSAGE,
}


@pytest.mark.parametrize(("text", "source"), UNDERSTOOD.items(), ids=UNDERSTOOD)
def test_understood(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=[repr(text) for text in REFUSED])
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$") as refusal:
        parse_source(text)
    assert str(refusal.value) == message


def test_too_long() -> None:
    with pytest.raises(ValueError, match="at most 1024"):
        parse_source("pvc://models/" + "x" * 1024)
