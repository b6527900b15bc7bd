"""What people build agents with, unmodified: each does a real flow with a tool and a stream against a real server.

The flows are programs of their own, which end with an error where something is not as it should be.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import environment
from tests.runtime.process import MODEL, ServerProcess

FLOWS = Path(__file__).parent / "flows"
DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = {
    page: re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    for page in ("messages.md", "responses.md")
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as process:
        yield process


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("flow", "packages"),
    [
        ("anthropic", "agents"),
        ("langchain", "agents"),
        ("llamaindex", "llamaindex"),
        ("openai", "agents"),
        ("openai_agents", "agents"),
    ],
)
def test_python(server: ServerProcess, flow: str, packages: str) -> None:
    run(environment.python(packages), FLOWS / f"with_{flow}.py", server.root, MODEL)


@pytest.mark.parametrize("flow", ["anthropic", "openai"])
def test_javascript(server: ServerProcess, flow: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    folder = environment.node_folder()
    # Modules are looked for beside the program.
    program = Path(shutil.copy(FLOWS / f"with_{flow}.mjs", folder))
    run("node", program, server.root, MODEL)


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page, found in EXAMPLES.items() for number in range(len(found))]
)
def test_what_the_pages_show(server: ServerProcess, tmp_path: Path, page: str, number: int) -> None:
    """Each example runs as it stands, but for the address, and says something in the end."""
    program = tmp_path / "example.py"
    program.write_text(EXAMPLES[page][number].replace("http://127.0.0.1:8000", server.root))
    assert run(environment.python("agents"), program).strip()


def test_every_flow_is_run() -> None:
    named = {path.stem.removeprefix("with_") for path in FLOWS.iterdir() if path.suffix in (".py", ".mjs")}
    assert named == {"anthropic", "langchain", "llamaindex", "openai", "openai_agents"}
