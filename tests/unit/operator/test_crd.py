import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferno_operator import crd
from inferno_runtime.config import EngineConfig, ServerConfig

ROOT = Path(__file__).parents[3]
COPIES = [ROOT / "crds" / crd.FILE_NAME, ROOT / "charts" / "inferno" / "files" / crd.FILE_NAME]
FORBIDDEN = {"$ref", "$defs", "allOf", "oneOf", "title", "additionalItems", "prefixItems", "exclusiveMinimum", "const"}

Schema = dict[str, Any]


def root() -> Schema:
    schema: Schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field below ``schema``, by its path."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from fields(schema[keyword], f"{path}[]")


FIELDS = dict(fields(root()))


@pytest.mark.parametrize("path", COPIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_files_are_what_the_types_say(path: Path) -> None:
    assert path.read_text() == crd.render(), "run `make manifests`"


def test_writes_into_folders(tmp_path: Path) -> None:
    crd.main([str(tmp_path / "one"), str(tmp_path / "two" / "three")])
    assert (tmp_path / "one" / crd.FILE_NAME).read_text() == (tmp_path / "two/three" / crd.FILE_NAME).read_text()


@pytest.mark.parametrize("path", FIELDS)
def test_structural(path: str) -> None:
    field = FIELDS[path]
    assert not FORBIDDEN & set(field)
    assert "type" in field or field.get("x-kubernetes-int-or-string")
    assert "anyOf" not in field or field["x-kubernetes-int-or-string"]
    if field.get("type") == "array":
        assert "x-kubernetes-list-type" in field


@pytest.mark.parametrize("path", sorted(set(FIELDS) - {".metadata"}))
def test_kubectl_explain_reads_well(path: str) -> None:
    field = FIELDS[path]
    description = field["description"]
    assert description.endswith(".")
    assert "`" not in description
    parent = FIELDS.get(path.rpartition(".")[0].removesuffix("[]"), root())
    required = parent.get("items", parent).get("required", [])
    optional_setting = path.startswith(".spec.") and path.rpartition(".")[2] not in required
    if optional_setting and "properties" not in field:
        assert "Default:" in description, "say what happens when it is left out"


# What the resource counts in; a preference is a number from 1 to 100.
_UNITS = re.compile(
    r"\b(bytes|KiB|MiB|(milli)?seconds|percent|tokens|sequences|requests|responses|streams|threads|layers|pods|values|"
    r"multiples|images|pixels|unit|1 to 100)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "path",
    [
        path
        for path, field in FIELDS.items()
        if path.startswith(".spec.") and (field.get("type") in ("integer", "number") or "anyOf" in field)
    ],
)
def test_a_number_says_what_it_counts(path: str) -> None:
    assert _UNITS.search(FIELDS[path]["description"]), FIELDS[path]["description"]


@pytest.mark.parametrize(("section", "type_"), [("engine", EngineConfig), ("server", ServerConfig)])
def test_the_runtimes_settings_are_all_there_with_their_defaults(section: str, type_: Any) -> None:
    schema = FIELDS[f".spec.{section}"]
    assert schema["default"] == {}
    defaults = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
    # A list that is left out is empty without a default.
    assert defaults == {name: value for name, value in type_().wire().items() if value != []}
    assert len(schema["properties"]) == len(type_.model_fields)


def test_every_field_of_a_pod_that_is_taken_has_an_effect() -> None:
    """Names the fields, so that a new one is not forgotten in test_manifests."""
    assert sorted(FIELDS[".spec"]["properties"]) == [
        "affinity",
        "autoscaling",
        "engine",
        "env",
        "image",
        "imagePullPolicy",
        "imagePullSecrets",
        "keysSecret",
        "maxUnavailable",
        "model",
        "monitoring",
        "network",
        "nodeSelector",
        "podTemplate",
        "priorityClassName",
        "profileTimeoutSeconds",
        "profiles",
        "replicas",
        "resourceClaims",
        "resources",
        "runtimeClassName",
        "server",
        "storage",
        "suspend",
        "tolerations",
        "topologySpreadConstraints",
        "volumeMounts",
        "volumes",
    ]
