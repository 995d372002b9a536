"""On Windows, a thread that waits for a lock hears of no signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripts

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])

SOURCE = f"""
import asyncio, signal, sys
sys.path.insert(0, {str(Path(scripts.__file__).parent)!r})
import anysync, scripts

async def waits():
    asyncio.get_running_loop().call_soon(print, "waiting")
    try:
        await asyncio.sleep(30)
    finally:
        print("cancelled")

if sys.platform == "win32":  # a process group of its own hears no Ctrl-C, only Ctrl-Break
    signal.signal(signal.SIGBREAK, lambda *_: signal.raise_signal(signal.SIGINT))
else:
    signal.signal(signal.SIGINT, signal.default_int_handler)
scripts.watch()
try:
    scripts.PLACE(lambda: anysync.run(waits()))
except KeyboardInterrupt:
    print("interrupted")
"""


def interrupt_a_child_that_waits(place, signum, flags=0):
    """Return what a child prints once it waits in a call and gets a signal, and how long that takes."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", SOURCE.replace("PLACE", place)],
        creationflags=flags,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout.readline() == "waiting\n"
            began = time.monotonic()
            os.kill(child.pid, signum)
            printed = child.stdout.read().split()
            assert child.wait() == 0
            return printed, time.monotonic() - began
        finally:
            child.kill()


@pytest.mark.skipif(sys.platform != "win32", reason="Ctrl-Break is a key of Windows")
@places
def test_16_ctrl_c_on_windows(place):
    """agronholm/anyio#532, modal-labs/synchronicity#178, modal-labs/synchronicity#179."""
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    signum = getattr(signal, "CTRL_BREAK_EVENT", 0)
    printed, seconds = interrupt_a_child_that_waits(place, signum, flags)
    assert printed == ["cancelled", "interrupted"]
    assert seconds < 1


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill sends no SIGINT on Windows")
@places
def test_16_ctrl_c_elsewhere_than_on_windows(place):
    """agronholm/anyio#532: the same child, of which each wait can be interrupted."""
    printed, seconds = interrupt_a_child_that_waits(place, signal.SIGINT)
    assert printed == ["cancelled", "interrupted"]
    assert seconds < 1
