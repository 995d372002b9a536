"""Tells which call blocks which loop, and where both stand: `configure(stall_warning=...)`."""

import gc
import logging
import os
import sys
import traceback
from _thread import get_ident
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from types import FrameType
from typing import Any

from ._core import BaseCall, Step, running

#: seconds until a blocked loop is warned of; None: in debug mode only, after `_IN_DEBUG_MODE`
limit: float | None = None

_IN_DEBUG_MODE = 5.0
_OURS = os.path.dirname(__file__) + os.sep
_OUR_CORE = "anysync_ext"
#: what stands between a coroutine and the one that it awaits, and knows it, but does not tell
_BETWEEN = ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow")

_log = logging.getLogger("anysync")


def watch(call: BaseCall, waited: float) -> bool:
    """Warn if `call` has blocked the loop that runs here too long; true if that is not to be asked again."""
    loop = running()
    if loop is None:
        return True
    patience = limit
    if patience is None:
        if not getattr(loop, "get_debug", bool)():
            return True
        patience = _IN_DEBUG_MODE
    if waited < patience:
        return False
    what = _what(call)
    if call.result is not None:  # it has ended just now, and has forgotten what it was
        return True
    # not from this frame, which would refer to itself
    here = [frame for frame, _ in traceback.walk_stack(sys._getframe(1))]  # pyright: ignore[reportPrivateUsage]
    _log.warning(
        "the event loop %r has been blocked for %.1f seconds by the call of %r: it goes on when the call has "
        "ended, which it cannot if it needs what only that loop can give, such as a lock that is held there; "
        "async code can await instead\nThe loop is blocked here:\n%sThe call stands here:\n%s",
        loop,
        waited,
        what,
        _shown(reversed(here)),
        _shown(_where(call)) or "  it has ended just now\n",
    )
    return True


def _what(call: BaseCall) -> object:
    if isinstance(call, Step):
        return getattr(call.function, "__self__", call.function)
    return call.coro


def _where(call: BaseCall) -> list[FrameType]:
    """Return the frames of the call's coroutine, and of what it runs or awaits, the innermost last."""
    task = call.session.task if isinstance(call, Step) else call.task
    coro: Any = call.coro if task is None else task.get_coro()
    own = getattr(coro, "cr_frame", None)
    threads = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    del threads[get_ident()]  # this very frame, which would refer to itself
    for innermost in threads.values():
        frames = [frame for frame, _ in traceback.walk_stack(innermost)]
        if own in frames:  # it runs
            return frames[frames.index(own) :: -1]
    return list(_awaiting(coro))


def _awaiting(thing: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, and of what it awaits."""
    while thing is not None:
        if type(thing).__name__ in _BETWEEN:
            thing = next((one for one in gc.get_referents(thing) if _is_suspendable(one)), None)
            continue
        for prefix, awaited in ("cr", "cr_await"), ("ag", "ag_await"), ("gi", "gi_yieldfrom"):
            if hasattr(thing, awaited):
                frame = getattr(thing, f"{prefix}_frame", None)
                if frame is not None:
                    yield frame
                thing = getattr(thing, awaited)
                break
        else:
            return


def _is_suspendable(thing: object) -> bool:
    return isinstance(thing, (Coroutine, AsyncGenerator))


def _shown(frames: Iterable[FrameType]) -> str:
    """Return the lines of a traceback through these frames, without those of ours."""
    theirs = (
        (frame, frame.f_lineno)
        for frame in frames
        if not frame.f_code.co_filename.startswith(_OURS) and _OUR_CORE not in frame.f_code.co_filename
    )
    return "".join(traceback.StackSummary.extract(theirs).format())
