"""The programs in `examples/`, run as a reader runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_marks import of_cpython

EXAMPLES = Path(__file__).parent.parent / "examples"

PRINTED = {
    "shared_client.py": """\
hello, ada
hello, grace
hello, barbara
3 calls, 1 connection
""",
    "hosted_server.py": """\
2 + 3 = 5
4 + 5 = 9
the server is gone
""",
    "streaming_lines.py": """\
in a script: 3
in a script: 2
in a script: 1
in a script: lift-off
in a loop: 3
in a loop: 2
in a loop: 1
in a loop: lift-off
async for: ['3', '2', '1', 'lift-off']
left early: 1000000
""",
}


AT_A_BREAK = "streaming_lines.py"  # whose server waits for what a `break` lets go of


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=of_cpython if name == AT_A_BREAK else ()) for name in PRINTED]
)
def test_example(name: str) -> None:
    for library in "httpx", "starlette", "uvicorn":
        pytest.importorskip(library)
    ran = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=50)
    assert (ran.stdout, ran.returncode) == (PRINTED[name], 0), ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_example_is_tested_and_says_what_it_shows() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTED)
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text().startswith('"""')
