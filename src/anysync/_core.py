"""Picks the core: the only module that knows that there is a choice.

`ANYSYNC_EXTENSION` has one meaning when building and when importing: unset, use the extension if it
is there; `0`, never; `1`, always, and a missing extension is an error. `ANYSYNC_SPIN_US` is how many
microseconds a thread looks for an answer before it parks; 0 is never. `ANYSYNC_BACKEND` is where plain
sync code runs its coroutines: `asyncio`, if unset, or `trio`.
"""

import os
from _thread import RLock
from typing import Literal

_extension = os.environ.get("ANYSYNC_EXTENSION", "")
if _extension not in ("", "0", "1"):
    raise ImportError(f"ANYSYNC_EXTENSION must be 0, 1 or unset, not {_extension!r}")

_spin = os.environ.get("ANYSYNC_SPIN_US") or "50"
try:
    spin_seconds = int(_spin) / 1e6
except ValueError:
    spin_seconds = -1
if not 0 <= spin_seconds <= 1:
    raise ImportError(f"ANYSYNC_SPIN_US must be a number of microseconds from 0 to 1000000, not {_spin!r}")

#: held to import what the first call needs: no child may be forked meanwhile, where nobody would finish that
importing = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=importing.acquire, after_in_parent=importing.release, after_in_child=importing.release
    )

default_backend = os.environ.get("ANYSYNC_BACKEND") or "asyncio"
if default_backend not in ("asyncio", "trio"):
    raise ImportError(f"ANYSYNC_BACKEND must be asyncio, trio or unset, not {default_backend!r}")
if default_backend == "trio":
    from importlib.util import find_spec

    if find_spec("trio") is None:
        raise ImportError("ANYSYNC_BACKEND=trio needs trio: pip install 'anysync[trio]'", name="trio")

name: Literal["pure", "compiled"] = "compiled"
try:
    if _extension == "0":
        raise ImportError
    from ._fastloop import (
        BaseCall,
        BaseCoroutine,
        BaseSession,
        Drive,
        Latch,
        LoopState,
        Mailbox,
        Step,
        add_cancel,
        be_direct,
        drop_frame,
        load,
        outcome,
        raise_as_is,
        running,
        thread,
    )
except ImportError as error:
    if _extension == "1":
        raise ImportError(
            "ANYSYNC_EXTENSION=1 asks for the compiled core, and this installation has none that works "
            f"({error}): unset the variable, or set it to 0, to use the pure-Python core"
        ) from error
    from ._pyloop import (
        BaseCall,
        BaseCoroutine,
        BaseSession,
        Drive,
        Latch,
        LoopState,
        Mailbox,
        Step,
        add_cancel,
        be_direct,
        drop_frame,
        load,
        outcome,
        raise_as_is,
        running,
        thread,
    )

    name = "pure"

__all__ = [
    "BaseCall",
    "BaseCoroutine",
    "BaseSession",
    "Drive",
    "Latch",
    "LoopState",
    "Mailbox",
    "Step",
    "add_cancel",
    "be_direct",
    "default_backend",
    "drop_frame",
    "importing",
    "load",
    "name",
    "outcome",
    "raise_as_is",
    "running",
    "spin_seconds",
    "thread",
]
