"""The rules of ``spec.model``, as CEL for the API server; what sources mean is told in `inferno_runtime.sources`."""

from typing import Any, Final

from inferno_runtime import sources


def _cel_string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\") + "'"


def _shape(scheme: str) -> dict[str, str]:
    pattern = _cel_string(sources.SHAPES[scheme][0])
    rule = f"!self.startsWith('{scheme}://') || self.matches({pattern})"
    return {"rule": rule, "message": sources.shape_message(scheme)}


_SCHEMES: Final = "|".join(sources.SHAPES)
SOURCE_RULES: Final[Any] = [
    {"rule": f"self.matches('^({_SCHEMES})://')", "message": sources.SCHEME_MESSAGE},
    *map(_shape, sources.SHAPES),
    {"rule": f"!self.matches({_cel_string(sources.DOTS)})", "message": sources.DOTS_MESSAGE},
]

ADAPTER_MESSAGE: Final = "the source of an adapter must name a file, without *, not a folder"
ADAPTER_RULES: Final[Any] = [
    *SOURCE_RULES,
    {"rule": "!self.endsWith('/') && !self.contains('*')", "message": ADAPTER_MESSAGE},
]

FILES_MESSAGE: Final = "files is for a source that is a folder: https://, hf:// or s3:// with a / at its end"
WEB_FOLDER_MESSAGE: Final = (
    "an https:// folder needs files, by their names and without *: a web server has no list of them"
)
MODEL_RULES: Final[Any] = [
    {
        "rule": "!has(self.files) || size(self.files) == 0 || self.source.matches('^(https|hf|s3)://.*/$')",
        "message": FILES_MESSAGE,
        "fieldPath": ".files",
    },
    {
        "rule": "!self.source.matches('^https://.*/$') || (has(self.files) && size(self.files) > 0"
        " && self.files.all(file, !file.contains('*')))",
        "message": WEB_FOLDER_MESSAGE,
        "fieldPath": ".source",
    },
]


def check_model(source: str, files: tuple[str, ...]) -> None:
    """Raises ValueError in the words of `MODEL_RULES`."""
    folder = source.endswith("/")
    if files and not (folder and source.startswith(("https://", "hf://", "s3://"))):
        raise ValueError(FILES_MESSAGE)
    if folder and source.startswith("https://") and (not files or any("*" in file for file in files)):
        raise ValueError(WEB_FOLDER_MESSAGE)


def check_adapter(source: str) -> None:
    """Raises ValueError in the words of `ADAPTER_RULES`."""
    sources.parse_source(source)
    if source.endswith("/") or "*" in source:
        raise ValueError(ADAPTER_MESSAGE)
