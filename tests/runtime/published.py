"""OpenAI's published schemas, where `INFERNO_OPENAI_SCHEMA` names a file of its components."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema

VARIABLE = "INFERNO_OPENAI_SCHEMA"


@lru_cache(maxsize=1)
def _components() -> dict[str, Any] | None:
    path = os.environ.get(VARIABLE)
    return json.loads(Path(path).read_text())["$defs"] if path else None


def check(name: str, value: Any) -> None:
    """Hold a value to the component of this name; nothing where there is no file. Raises `jsonschema.ValidationError`."""
    components = _components()
    if components is not None:
        jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": components}).validate(value)
