"""Writes the reference pages from the code: `make docs`.

docs/configuration.md follows from the fields of the configuration, docs/metrics.md from the metrics, docs/resource.md from
the InfernoModel's types, and the tables of docs/api.md and the pages beside it, which stand between two marks each, from the
types of requests and messages.

scripts/reference.py [--check]
"""

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo

from inferno_operator.crd import custom_resource_definition
from inferno_runtime.config import AdapterConfig, Config, EngineConfig, ListenConfig, ModelConfig, ServerConfig
from inferno_runtime.engine.request import FinishReason, Usage
from inferno_runtime.openai import fields, stream_schemas
from inferno_runtime.openai.components import component_schemas
from inferno_runtime.openai.embeddings import EmbeddingsRequest
from inferno_runtime.openai.operations import OPERATIONS, Operation
from inferno_runtime.openai.requests import ChatRequest, CompletionRequest, Message, StreamOptions
from inferno_runtime.server.metrics import Metrics
from inferno_runtime.worker.stats import EngineStats

DOCS = Path(__file__).resolve().parent.parent / "docs"
INTRODUCTION = """\
# Configuration

<!-- Written by `make docs` from runtime/src/inferno_runtime/config.py; edit it there. -->

The same knobs serve a laptop and a cluster. In an `InfernoModel` they stand under `spec.model`, `spec.engine` and
`spec.server`; on the command line each of the latter two is a flag of `inferno serve` (and those of the server of
`inferno run` too, where they win over the resource). A value out of its range is refused by the API server, and by the
command line with one line that names it.
"""
SECTIONS: list[tuple[str, type[Config], bool, bool]] = [
    ("spec.model", ModelConfig, True, False),
    ("spec.model.adapters[]", AdapterConfig, True, False),
    ("spec.engine", EngineConfig, True, True),
    ("spec.server", ServerConfig, True, True),
    ("Listening", ListenConfig, False, True),
]
METRICS = """\
# Metrics

<!-- Written by `make docs` from runtime/src/inferno_runtime/server/metrics.py; edit it there. -->

`/metrics` has these in Prometheus' text format, and `process_*` of the server's own process. The names are vLLM's where it
has such a metric, with `inferno_` in place of `vllm:`.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
"""
# Whose fields have a page of their own, or are those of a pod.
ELSEWHERE = ("spec.engine", "spec.server", "spec.affinity")
RESOURCE = """\
# InfernoModel

<!-- Written by `make docs` from operator/src/inferno_operator/api; edit it there. -->

`inferno.ai/v1alpha1`, short name `im`. `kubectl explain im.spec` says the same. The fields of `spec.engine` and `spec.server`
are [the runtime's settings](configuration.md), those of `spec.affinity` a pod's.
"""


def configuration() -> str:
    """The page of the knobs."""
    return INTRODUCTION + "".join(section(*row) for row in SECTIONS)


def section(title: str, config: type[Config], field: bool, flag: bool) -> str:
    """One table. `field` and `flag` say where its knobs can be set."""
    head = [*(["Field"] if field else []), *(["Flag"] if flag else []), "Type", "Default", "Meaning"]
    rows = [head, ["---"] * len(head)]
    for name, info in config.model_fields.items():
        rows.append(
            [
                *([f"`{info.alias}`"] if field else []),
                *([f"`--{name.replace('_', '-')}`"] if flag else []),
                kind(info),
                "required" if info.is_required() else default(info),
                info.description or "",
            ]
        )
    heading = f"`{title}`" if title.startswith("spec") else title
    return f"\n## {heading}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def kind(info: FieldInfo) -> str:
    """The type and the range of a field, as a person writes it."""
    annotation: Any = info.annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):  # the latter where one of them is a Literal
        annotation = next(part for part in annotation.__args__ if part is not type(None))
    if typing.get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in annotation.__args__)
    bounds = {type(item): item for item in info.metadata}
    if annotation in (int, float):
        word = "integer" if annotation is int else "number"
        low, high = bounds.get(Ge), bounds.get(Le)
        return f"{word}, {low.ge} to {high.le}" if isinstance(low, Ge) and isinstance(high, Le) else word
    if typing.get_origin(annotation) is tuple:
        longest = bounds.get(MaxLen)
        items = "strings" if annotation.__args__[0] is str else "objects"
        return f"list of {items}" + (f", {longest.max_length} at most" if isinstance(longest, MaxLen) else "")
    return "string, not empty" if MinLen in bounds else "string"


def default(info: FieldInfo) -> str:
    """The default of a field."""
    return "–" if info.default in (None, ()) else f"`{info.default}`"


def metrics() -> str:
    """The page of the metrics."""
    observed = Metrics(lambda: [("model", EngineStats())])
    observed.requests.labels("model", "completions", "200").inc()
    observed.sequence("model", Usage(1, 0, 2, 0.0, 0.0, 0.0), FinishReason.STOP, 0.0, 0.0)
    rows = []
    for family in observed.families():
        if family.name.startswith("inferno_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in family.samples[0].labels if label != "le")
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n")
    return METRICS + "".join(rows)


def resource() -> str:
    """The page of the InfernoModel."""
    version = custom_resource_definition()["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]["properties"]
    tables = []
    for part in ("spec", "status"):
        rows = "".join(f"| `{path}` | {type_} | {text} |\n" for path, type_, text in resource_fields(root[part], part))
        tables.append(f"\n## `{part}`\n\n| Field | Type | Meaning |\n| --- | --- | --- |\n{rows}")
    return RESOURCE + "".join(tables)


def resource_fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """Every field below a schema: its path, its type and what it means."""
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        inner = child.get("items", child)
        type_ = inner.get("type", "integer or string")
        yield below, f"list of {type_}s" if "items" in child else type_, child["description"].replace("|", "\\|")
        if below not in ELSEWHERE:
            yield from resource_fields(inner, below + ("[]" if "items" in child else ""))


# docs/api.md, and the pages of other APIs

MARKED = re.compile(r"(<!-- ([^:\n]+): written by `make docs` -->\n).*?(<!-- end -->)", re.DOTALL)
COMPONENTS = component_schemas([])


WITH_TABLES = ("api.md", "messages.md", "responses.md")


def with_tables(name: str) -> str:
    """A page that is written by hand, with its tables as they ought to be."""
    return MARKED.sub(lambda mark: mark[1] + table(mark[2]) + mark[3], (DOCS / name).read_text())


def table(name: str) -> str:
    """The table between the marks of this name."""
    match name.split():
        case ["paths"]:
            return lines(PATHS_HEAD, [path_row(*each) for each in paths().items()])
        case ["refusals"]:
            return lines(("Field", "Of", "Refused"), refusals())
        case ["ignored"]:
            return lines(("Field", "Of"), ignored())
        case ["fields", "of", kind]:
            return lines(("Field", "Type", "Default", "Meaning"), field_rows(kind))
        case ["messages", "of", union]:
            kinds = typing.get_args(getattr(stream_schemas, union))
            return lines(("`type`", "Fields", "Meaning"), [message_row(each) for each in kinds])
        case _:
            sys.exit(f"api.md: there is no table '{name}'")


def lines(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


PATHS_HEAD = ("Path", "Method", "Purpose", "Key", "Counts")


def paths() -> dict[str, list[Operation]]:
    """The operations of each path; those without `/v1` stand with their own."""
    found: dict[str, list[Operation]] = {}
    for operation in OPERATIONS:
        if not operation.name.endswith("Unversioned"):
            found.setdefault(operation.path, []).append(operation)
    return found


def path_row(path: str, operations: list[Operation]) -> tuple[str, ...]:
    """What a path is for."""
    first = operations[0]
    bare = path.removeprefix("/v1")
    both = any(each.path == bare and each.name.endswith("Unversioned") for each in OPERATIONS)
    names = f"`{path}`" + (f", `{bare}`" if both else "")
    methods = ", ".join(f"`{operation.method.upper()}`" for operation in operations)
    return names, methods, first.summary, "yes" if first.keyed else "", "yes" if first.metered else ""


def field_rows(kind: str) -> list[tuple[str, ...]]:
    """The fields of a request; of a completion those that a chat has not, or has otherwise."""
    (of,) = (each for each in fields.REQUESTS if each.__name__ == kind)
    schema = COMPONENTS[kind]
    shared = COMPONENTS["ChatRequest"]["properties"] if of is CompletionRequest else {}
    return [
        (
            f"`{name}`",
            words(schema["properties"][name]),
            "required" if name in schema["required"] else json_default(field.default),
            schema["properties"][name]["description"],
        )
        for name, field in fields.described(of).items()
        if schema["properties"][name] != shared.get(name)
    ]


def json_default(value: object) -> str:
    """A default as it stands in a request."""
    match value:
        case None:
            return "–"
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{value}`"


def refusals() -> list[tuple[str, ...]]:
    """The fields that are known and not honoured."""
    rows: dict[tuple[str, str], list[str]] = {}
    for kind, of in ((ChatRequest, "chats"), (CompletionRequest, "completions"), (Message, "messages")):
        for name, field in fields.described(kind).items():
            if field.refused:
                rows.setdefault((name, field.refused), []).append(of)
    return [(f"`{name}`", ", ".join(of), refused) for (name, refused), of in rows.items()]


def ignored() -> list[tuple[str, ...]]:
    """The fields that are accepted and change nothing."""
    rows: dict[str, list[str]] = {}
    kinds = (
        (ChatRequest, "chats"),
        (CompletionRequest, "completions"),
        (EmbeddingsRequest, "embeddings"),
        (StreamOptions, "`stream_options`"),
    )
    for kind, of in kinds:
        for name, field in fields.described(kind).items():
            if field.ignored:
                rows.setdefault(name, []).append(of)
    return [(f"`{name}`", ", ".join(of)) for name, of in rows.items()]


def message_row(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """What a message of a WebSocket has."""
    schema = COMPONENTS[kind.__name__]
    parts = []
    for name, prop in schema["properties"].items():
        if name in schema["required"]:
            parts.append(f"`{name}`: {words(prop)}{' or null' if {'type': 'null'} in prop.get('anyOf', ()) else ''}")
        else:
            parts.append(f"`{name}`?: {words(prop)}")
    meaning = " ".join((inspect.getdoc(kind) or "").split())
    return f"`{kind.__struct_config__.tag}`", "; ".join(parts[1:]), meaning  # the first is the type


def words(schema: dict[str, Any], *, many: bool = False) -> str:
    """A JSON schema as a person says it. many: in the plural."""
    if "anyOf" in schema:
        kinds = [part for part in schema["anyOf"] if part.get("type") != "null"]
        said = list(dict.fromkeys(words(part, many=many) for part in kinds))
        return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"
    if "$ref" in schema:
        return words(COMPONENTS[schema["$ref"].rpartition("/")[2]], many=many)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list{'s' if many else ''} of {words(schema.get('items', {'type': 'object'}), many=True)}"
    return f"{schema['type']}{'s' if many else ''}{bounds(schema)}"


def bounds(schema: dict[str, Any]) -> str:
    """The range of a number, or the length of a text."""
    if "maxLength" in schema:
        return f", {schema['minLength']} to {schema['maxLength']} characters"
    if "exclusiveMinimum" in schema:
        return f", above {schema['exclusiveMinimum']:,} to {schema['maximum']:,}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return ""
    if high == 2**63 - 1:
        return ", 64 bits"
    return f", {low:,} or more" if high is None else f", {low:,} to {high:,}"


def main() -> None:
    """Write the pages; with --check only say whether they are up to date."""
    pages = {"configuration.md": configuration(), "metrics.md": metrics(), "resource.md": resource()}
    for name, text in (pages | {name: with_tables(name) for name in WITH_TABLES}).items():
        page = DOCS / name
        if "--check" not in sys.argv:
            page.write_text(text)
        elif page.read_text() != text:
            sys.exit(f"{page.name} does not match the code; run `make docs`")


if __name__ == "__main__":
    main()
