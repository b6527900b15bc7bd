"""The examples in the documents do what the text around them says."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.runtime.process import ServerProcess

PAGE = (Path(__file__).parents[2] / "docs" / "structured-output.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
SAID = [
    r"name='.{0,40}' capital=(True|False)",
    r"The answer is [0-9]{1,3}\.\nThe capital is [A-Z][a-z]{2,15}\.",
    "yes|no",
]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [block.replace(ADDRESS, "{root}") for block in found]


def printed(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_python(server: ServerProcess) -> None:
    for block, pattern in zip(blocks("python"), SAID, strict=True):
        assert re.fullmatch(pattern, printed(sys.executable, "-c", block.replace("{root}", server.root)), re.DOTALL)


def test_curl(server: ServerProcess) -> None:
    (block,) = blocks("console")
    command = block.replace("{root}", server.root).removeprefix("$ ").replace("curl ", "curl -sS ", 1)
    answer = json.loads(printed("sh", "-c", command))
    assert set(json.loads(answer["choices"][0]["message"]["content"])) == {"name", "capital"}


def test_the_error(server: ServerProcess) -> None:
    (block,) = blocks("json")
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "strin"}}}
    assert server.chat(response_format=form).json() == json.loads(block)
