import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs_as_printed(example: str) -> None:
    if "use_uvloop" in example:
        pytest.importorskip("uvloop")
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", example], check=True, timeout=30)


def test_examples_are_found() -> None:
    assert len(EXAMPLES) >= 7


def test_links_work_on_the_package_index_too() -> None:
    """There is no folder beside the page there, and its anchors have other names."""
    addresses = dict(re.findall(r"^\[(\w+)\]: (\S+)$", README, re.MULTILINE))
    text = re.sub(r"^```.*?^```|`[^`]*`", "", README, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\]\[(\w+)\]", text)) == set(addresses)
    for address in [*addresses.values(), *re.findall(r"\]\((.*?)\)", text)]:
        assert address.startswith("https://")
        ours = re.search(r"/rmorshea/anysync/(?:(?:blob|tree)/)?main/([^#]+)(?:#(.*))?$", address)
        if ours:
            assert (ROOT / ours[1]).exists()
            assert not ours[2] or f"\n## {ours[2].replace('-', ' ')}\n" in README.lower()
