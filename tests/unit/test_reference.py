"""The reference pages match what they are generated from, and what is written by hand in them is so."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inferno_runtime.openai import errors
from inferno_runtime.openai.errors import ApiError

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text()
FACTORIES = {
    name: factory
    for name, factory in inspect.getmembers(errors, inspect.isfunction)
    if inspect.signature(factory).return_annotation is ApiError
}
Error = tuple[int, str, str]  # status, type, code


def test_the_pages_are_up_to_date() -> None:
    script = ROOT / "scripts" / "reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_of_the_api_has_all_its_tables() -> None:
    assert re.findall(r"<!-- (.+): written by `make docs` -->", API) == [
        "paths",
        "fields of ChatRequest",
        "fields of Message",
        "fields of ResponseFormat",
        "fields of JsonSchema",
        "fields of StructuredOutputs",
        "fields of CompletionRequest",
        "fields of EmbeddingsRequest",
        "fields of RerankRequest",
        "fields of TokenizeRequest",
        "fields of DetokenizeRequest",
        "fields of ApplyTemplateRequest",
        "messages of ClientMessage",
        "messages of ServerMessage",
        "refusals",
        "ignored",
    ]


def test_every_error_is_in_the_table_and_there_is_no_other() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| `(\w+)` \| \S.* \| \S.* \|$", API, re.MULTILINE)
    documented = [(int(status), kind, code) for status, kind, code in rows]
    assert len(set(documented)) == len(documented)
    assert documented == sorted(documented, key=lambda error: error[0])
    raised = {
        error
        for path in (ROOT / "runtime" / "src" / "inferno_runtime").rglob("*.py")
        for error in errors_in(ast.parse(path.read_text()))
    }
    assert set(documented) == raised


def errors_in(module: ast.Module) -> Iterator[Error]:
    """The errors that a module makes, as far as their code stands where they are made."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {str(keyword.arg): keyword.value for keyword in node.keywords}
            if name == "ApiError" and isinstance(given.get("code"), ast.Constant):
                kind = ast.unparse(given["kind"]).rpartition(".")[2] if "kind" in given else "INVALID_REQUEST"
                # What tornado finds wrong by itself has tornado's status, which is a 400.
                status = node.args[0].value if isinstance(node.args[0], ast.Constant) else 400
                yield int(str(status)), getattr(errors, kind), ast.literal_eval(given["code"])
            elif name in FACTORIES:
                yield made_by(name, node.args, given)


def made_by(name: str, args: list[ast.expr], given: dict[str, ast.expr]) -> Error:
    """The error of a call of one of the functions in `errors`."""
    signature = inspect.signature(FACTORIES[name])
    bound = signature.bind(*args, **given).arguments
    stand_ins: dict[Any, Any] = {int: 1, float: 1.0, dict[str, str]: {}, Sequence[str]: []}
    values = {each.name: stand_ins.get(each.annotation, "generate") for each in signature.parameters.values()}
    if "code" in signature.parameters:
        code = bound.get("code")
        values["code"] = ast.literal_eval(code) if code is not None else signature.parameters["code"].default
    error = FACTORIES[name](**values)
    assert error.code is not None
    return error.status, error.type, error.code
