"""What form an answer must have, whichever field asks for it."""

from dataclasses import dataclass

import msgspec

from inferno_runtime.engine import constraint
from inferno_runtime.engine.constraint import Constraint
from inferno_runtime.openai import errors
from inferno_runtime.openai.requests import GenerationRequest, ResponseFormat, StructuredOutputs

_OBJECT = {"type": "object"}
_CHOICES = 1024


@dataclass(frozen=True, slots=True)
class Form:
    """What form an answer must have.

    param: the field that says so; term: what stands for it in a grammar; lark: a grammar of the client's, which is one
    already and has no such term.
    """

    param: str
    term: str = ""
    lark: str | None = None

    @property
    def constraint(self) -> Constraint:
        """What an answer is held to that is nothing else."""
        return constraint.of_term(self.term) if self.lark is None else Constraint(self.lark)


def form_of(request: GenerationRequest) -> Form | None:
    """The form that a request asks for; None for any text. Raises `ApiError`."""
    form, outputs = request.response_format, request.structured_outputs
    wanted = None if form is None or form.type == "text" else _of_format(form)
    if outputs is None:
        return wanted
    if wanted is not None:
        raise errors.bad_request(
            "Send either 'response_format' or 'structured_outputs', not both.", "structured_outputs"
        )
    return _of_outputs(outputs)


def _of_format(form: ResponseFormat) -> Form:
    param = "response_format"
    match form.type:
        case "json_schema":
            if form.json_schema is None:
                raise _missing("json_schema")
            schema = form.json_schema.schema
            return Form(param, _json(_OBJECT if schema is None else schema, param))
        case "grammar":
            if form.grammar is None:
                raise _missing("grammar")
            return Form(param, lark=form.grammar)
        case "regex":
            if form.regex is None:
                raise _missing("regex")
            return Form(param, constraint.regex_term(form.regex))
        case _:
            return Form(param, constraint.json_term(_OBJECT))


def _of_outputs(outputs: StructuredOutputs) -> Form:
    param = "structured_outputs"
    given = [name for name in outputs.__struct_fields__ if getattr(outputs, name) not in (None, False)]
    if outputs.json is False:
        given.append("json")
    if len(given) != 1:
        names = ", ".join(f"'{name}'" for name in outputs.__struct_fields__)
        raise errors.bad_request(f"'structured_outputs' must hold one of {names}.", param)
    if outputs.json_object:
        return Form(param, constraint.json_term(_OBJECT))
    if outputs.json is not None:
        schema = _decoded(outputs.json) if isinstance(outputs.json, str) else outputs.json
        return Form(param, _json(schema, param))
    if outputs.grammar is not None:
        return Form(param, lark=outputs.grammar)
    if outputs.regex is not None:
        return Form(param, constraint.regex_term(outputs.regex))
    choices = outputs.choice or []
    if not 1 <= len(choices) <= _CHOICES:
        raise errors.bad_request(f"'choice' must hold 1 to {_CHOICES} texts.", param)
    return Form(param, constraint.choice_term(choices))


def _json(schema: object, param: str) -> str:
    try:
        return constraint.json_term(schema)
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
