"""What form an answer must have: from the fields that ask for it to one kind of constraint."""

import msgspec

from inferno_runtime.engine import constraint
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.openai import errors
from inferno_runtime.openai.requests import GenerationRequest, ResponseFormat, StructuredOutputs

_OBJECT = {"type": "object"}
_CHOICES = 1024


def constraint_of(request: GenerationRequest) -> tuple[Constraint | None, str]:
    """What a request's answer must follow, None for any text, and the field that says so. Raises `ApiError`."""
    form, outputs = request.response_format, request.structured_outputs
    wanted = None if form is None else _of_format(form)
    if outputs is None:
        return wanted, "response_format"
    if wanted is not None:
        raise errors.bad_request(
            "Send either 'response_format' or 'structured_outputs', not both.", "structured_outputs"
        )
    return _of_outputs(outputs), "structured_outputs"


def _of_format(form: ResponseFormat) -> Constraint | None:
    match form.type:
        case "text":
            return None
        case "json_object":
            return constraint.of_schema(_OBJECT)
        case "json_schema":
            if form.json_schema is None:
                raise _missing("json_schema")
            schema = form.json_schema.schema
            return _of_schema(_OBJECT if schema is None else schema, "response_format")
        case "grammar":
            if form.grammar is None:
                raise _missing("grammar")
            return Constraint(form.grammar)
        case "regex":
            if form.regex is None:
                raise _missing("regex")
            return constraint.of_regex(form.regex)


def _of_outputs(outputs: StructuredOutputs) -> Constraint:
    given = [name for name in outputs.__struct_fields__ if getattr(outputs, name) not in (None, False)]
    if outputs.json is False:
        given.append("json")
    if len(given) != 1:
        names = ", ".join(f"'{name}'" for name in outputs.__struct_fields__)
        raise errors.bad_request(f"'structured_outputs' must hold one of {names}.", "structured_outputs")
    if outputs.json_object:
        return constraint.of_schema(_OBJECT)
    if outputs.json is not None:
        schema = _decoded(outputs.json) if isinstance(outputs.json, str) else outputs.json
        return _of_schema(schema, "structured_outputs")
    if outputs.grammar is not None:
        return Constraint(outputs.grammar)
    if outputs.regex is not None:
        return constraint.of_regex(outputs.regex)
    choices = outputs.choice or []
    if not 1 <= len(choices) <= _CHOICES:
        raise errors.bad_request(f"'choice' must hold 1 to {_CHOICES} texts.", "structured_outputs")
    return constraint.of_choice(choices)


def _of_schema(schema: object, param: str) -> Constraint:
    try:
        return constraint.of_schema(schema)
    except RecursionError as error:
        raise errors.invalid_grammar(param, "its schema nests too deep") from error


def _decoded(text: str) -> object:
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.bad_request(f"'json' is not valid JSON: {error}.", "structured_outputs") from error
    if not isinstance(schema, dict | bool):
        raise errors.bad_request("'json' must be a JSON Schema: an object or a boolean.", "structured_outputs")
    return schema


def _missing(name: str) -> errors.ApiError:
    return errors.bad_request(f"'response_format.{name}' is missing.", "response_format", "missing_required_parameter")
