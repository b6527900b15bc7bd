"""The API's description, and whether an answer is as it says."""

import copy
import json
from typing import Any

import httpx
import jsonschema

from inferno_runtime.openai.operations import Operation
from tests.unit.server.conftest import Running

# Headers of HTTP itself.
_PLAIN = {"server", "date", "content-length", "content-type", "transfer-encoding", "connection"}


class Description:
    """The document that a server gives of itself."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        # Clients must bear fields that they do not know, but no field should be unknown here.
        self._closed = copy.deepcopy(document["components"])
        for schema in self._closed["schemas"].values():
            if "properties" in schema:
                schema["additionalProperties"] = False

    def check(self, schema: dict[str, Any], value: Any, *, closed: bool = True) -> None:
        """Raises `jsonschema.ValidationError`. closed: whether objects may have no other fields than are described."""
        components = self._closed if closed else self.document["components"]
        jsonschema.Draft202012Validator({**schema, "components": components}).validate(value)

    def check_message(self, side: str, message: Any) -> None:
        """A message of a WebSocket's client or server."""
        self.check({"$ref": f"#/components/schemas/{side}Message"}, message)

    def answers(self, operation: Operation) -> dict[str, Any]:
        """What an operation may answer, by status."""
        answers: dict[str, Any] = self.document["paths"][operation.path][operation.method]["responses"]
        return answers

    def check_response(self, operation: Operation, response: httpx.Response) -> None:
        """An answer has a status, headers and a body that are described."""
        answers = self.answers(operation)
        # That a path has not this method is said by no method that it has.
        status = "default" if response.status_code == 405 else str(response.status_code)
        assert status in answers, f"{operation.method} {operation.path} answers {response.status_code}: {response.text}"
        answer = self._found(answers[status])
        self._check_headers(answer.get("headers", {}), response)
        if "content" not in answer:
            return
        kind = response.headers["content-type"].partition(";")[0]
        schema = answer["content"][kind]["schema"]
        if kind == "text/event-stream":
            data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
            for event in data:
                if event != "[DONE]":
                    self.check(schema["contentSchema"], json.loads(event))
        elif kind == "application/json":
            self.check(schema, response.json())

    def _check_headers(self, described: dict[str, Any], response: httpx.Response) -> None:
        headers = {name.lower(): self._found(header) for name, header in described.items()}
        assert set(response.headers) <= headers.keys() | _PLAIN
        for name, header in headers.items():
            assert name in response.headers or not header["required"], name
            if name in response.headers and header["schema"]["type"] == "integer":
                assert response.headers[name].isdecimal()

    def _found(self, value: dict[str, Any]) -> Any:
        return find(self.document, value["$ref"]) if "$ref" in value else value


def find(document: Any, reference: str) -> Any:
    """What a reference within a document refers to."""
    for name in reference.removeprefix("#/").split("/"):
        document = document[name]
    return document


async def describe(server: Running) -> Description:
    """The description that a server gives."""
    response = await server.client.get("/openapi.json")
    assert response.status_code == 200
    return Description(response.json())
