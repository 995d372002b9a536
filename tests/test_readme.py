import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs_as_printed(example: str) -> None:
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", example], check=True, timeout=30)


def test_examples_are_found() -> None:
    assert len(EXAMPLES) >= 7
