"""Writes docs/configuration.md from the fields of the configuration, docs/metrics.md from the metrics, and docs/resource.md
from the InfernoModel's: `make docs`.

scripts/reference.py [--check]
"""

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo

from inferno_operator.crd import custom_resource_definition
from inferno_runtime.config import Config, EngineConfig, ListenConfig, ModelConfig, ServerConfig
from inferno_runtime.engine.request import FinishReason, Usage
from inferno_runtime.server.metrics import Metrics
from inferno_runtime.worker.client import EngineStats

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
    if annotation is int:
        low, high = bounds.get(Ge), bounds.get(Le)
        return f"integer, {low.ge} to {high.le}" if isinstance(low, Ge) and isinstance(high, Le) else "integer"
    if typing.get_origin(annotation) is tuple:
        longest = bounds.get(MaxLen)
        return "list of strings" + (f", {longest.max_length} at most" if isinstance(longest, MaxLen) else "")
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
        rows = "".join(f"| `{path}` | {type_} | {text} |\n" for path, type_, text in fields(root[part], part))
        tables.append(f"\n## `{part}`\n\n| Field | Type | Meaning |\n| --- | --- | --- |\n{rows}")
    return RESOURCE + "".join(tables)


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """Every field below a schema: its path, its type and what it means."""
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        inner = child.get("items", child)
        type_ = inner.get("type", "integer or string")
        yield below, f"list of {type_}s" if "items" in child else type_, child["description"].replace("|", "\\|")
        if below not in ELSEWHERE:
            yield from fields(inner, below + ("[]" if "items" in child else ""))


def main() -> None:
    """Write the pages; with --check only say whether they are up to date."""
    pages = {"configuration.md": configuration(), "metrics.md": metrics(), "resource.md": resource()}
    for name, text in pages.items():
        page = DOCS / name
        if "--check" not in sys.argv:
            page.write_text(text)
        elif page.read_text() != text:
            sys.exit(f"{page.name} does not match the code; run `make docs`")


if __name__ == "__main__":
    main()
