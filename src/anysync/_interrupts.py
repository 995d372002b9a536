"""Ctrl-C while the main thread turns a loop."""

from _thread import get_ident
from collections.abc import Callable
from signal import SIGINT, default_int_handler
from types import FrameType
from typing import TYPE_CHECKING

from ._core import BaseCall
from ._host import Host
from ._on_asyncio import Loop
from ._process import process
from ._thread_host import ThreadHost

if TYPE_CHECKING:
    from signal import getsignal, signal as set_handler
else:  # what `signal` wraps around these to make enums costs more than a turn of the loop
    from _signal import getsignal, signal as set_handler


class Interrupts:
    """Ctrl-C while the main thread turns a loop: the first cancels the call, the second breaks out.

    A `KeyboardInterrupt` raised inside the loop's own code would lose wake-ups. Handlers that are not
    Python's own are left alone.
    """

    __slots__ = ("_handler", "_loop", "call", "count")

    def __init__(self, call: BaseCall, loop: Loop | None) -> None:
        self.call = call
        self.count = 0
        self._loop = loop
        self._handler: Callable[[int, FrameType | None], None] | None = None

    def begin(self) -> None:
        if get_ident() != process.main_thread or getsignal(SIGINT) is not default_int_handler:
            return
        handler = self._on_sigint
        try:
            set_handler(SIGINT, handler)
        except ValueError:  # a subinterpreter's main thread gets no signals
            return
        self._handler = handler
        if self._loop is not None:
            self._loop.expect_signals()

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1 or _waits_for_another_thread(frame):  # which then has its call cancelled
            raise KeyboardInterrupt
        self.call.loop.call_soon_threadsafe(self.call.cancel)

    def end(self) -> None:
        handler, self._handler = self._handler, None  # which refers back to this
        if handler is None:
            return
        if getsignal(SIGINT) is handler:
            set_handler(SIGINT, default_int_handler)
        if self._loop is not None:
            self._loop.expect_no_signals()


def _waits_for_another_thread(frame: FrameType | None) -> bool:
    """Whether what a signal broke into is a call that was made inside the loop, and blocks it."""
    for _ in range(4):
        if frame is None:
            break
        if frame.f_code in (ThreadHost.perform.__code__, Host.perform_elsewhere.__code__):
            return True
        frame = frame.f_back
    return False


def give_back_ctrl_c() -> None:
    """Make Python's own handler the one that hears of Ctrl-C, if it is a loop's that is turned no longer."""
    if isinstance(getattr(getsignal(SIGINT), "__self__", None), Interrupts):
        set_handler(SIGINT, default_int_handler)
