"""What `model.py` finds in a few examples, always the same; run it by itself to look for more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import complaints

EXAMPLES = os.environ.get("ANYSYNC_MODEL_EXAMPLES", "50")


@pytest.mark.timeout(60 + int(EXAMPLES) * 5)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_call_ends_once_with_its_callers_outcome_in_any_sequence_of_uses(backend):
    """The model's process has a watchdog, which prints all stacks."""
    pytest.importorskip("hypothesis")
    model = Path(__file__).with_name("model.py")
    command = [sys.executable, "-X", "dev", model, "--examples", EXAMPLES, "--backend", backend]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (complaints(done), done.returncode) == ([], 0), f"{done.stdout}\n{done.stderr}"
