"""A loop on a thread of its own: the background one, a nested one, a `Runner`'s."""

import asyncio
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ._core import Call, Mailbox, running
from ._host import Host, process, start_thread
from ._on_asyncio import Loop, mailbox_loop


class ThreadHost(Host):
    """A loop on a thread of its own: the background one, a nested one, a `Runner`'s.

    Guarantees. Only its thread touches the loop; everybody else posts. It survives whatever a task
    raises. A job posted when the thread has swept its mailbox is swept by who posted it: no call waits
    for ever. A transient host ends with the last thing that was open on it.
    """

    exit_order = 1

    def __init__(self, name: str, *, transient: bool = False, options: dict[str, Any] | None = None) -> None:
        super().__init__(mailbox_loop, options)
        self._transient = transient
        self._nested: weakref.WeakKeyDictionary[asyncio.Task[Any], ThreadHost] = weakref.WeakKeyDictionary()
        self._serving = True
        self._swept = False
        mailbox = getattr(self.loop, "mailbox", None)
        self._mailbox: Mailbox = Mailbox(self._ring, watching=True) if mailbox is None else mailbox
        try:
            self._thread = start_thread(name, self._main)
        except RuntimeError as error:
            self.gone = str(error)
            self.loop.close()
            raise RuntimeError(f"sync code inside an event loop needs a thread of its own: {error}") from None

    def _ring(self) -> None:
        with suppress(RuntimeError):  # closed, and swept
            self.loop.call_soon_threadsafe(self._mailbox.serve)

    def _main(self) -> None:
        process.thread.server = self
        while self.gone is None:
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        self._serving = False
        if not isinstance(self.loop, Loop):  # it may have put off a stop, which would break off its closing
            with suppress(RuntimeError, KeyboardInterrupt, SystemExit):
                self.loop.run_until_complete(asyncio.sleep(0))
        for call in tuple(self.open):
            if isinstance(call, Call):
                call.instead = RuntimeError(self.gone)
        try:
            self._close_loop()
        finally:
            self._swept = True
            self._sweep()

    def _sweep(self) -> None:
        while self._mailbox.serve():
            pass

    def nested(self) -> "ThreadHost":
        """Return the host for a sync call made on this thread: the running task's own while it has one."""
        task = asyncio.current_task() if running() is self.loop else None
        host = None if task is None else self._nested.get(task)
        if host is None or host.gone is not None:
            host = ThreadHost("anysync nested", transient=True)
            if task is not None:
                self._nested[task] = host
        return host

    def perform(self, call: Call) -> None:
        if get_ident() == self._thread.ident:
            call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
            return
        self.open.add(call)
        try:
            self._post_and_wait(call)
        finally:
            self.open.discard(call)
            if self._transient and not self.open:
                self.close()

    def post(self, job: Callable[[], object], call: Call) -> None:
        self._mailbox.post(partial(self._do, job, call))
        if self._swept:
            self._sweep()

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._transient and not self.open and self.gone is None:
            self._stop("the thread that this object lived on has ended")

    def close(self, reason: str = "the thread that this object lived on has ended") -> None:
        if self.gone is None:
            self._stop(reason)
        if get_ident() != self._thread.ident:
            self._thread.join()

    def give_up(self, reason: str) -> None:
        super().give_up(reason)
        self._mailbox, self._swept = Mailbox(self._ring), True  # who posts, sweeps

    def _stop(self, reason: str) -> None:
        self.gone = reason
        self._mailbox.post(self._stop_serving)

    def _stop_serving(self) -> None:
        if self._serving:  # else the thread has seen `gone` by itself, and is closing the loop
            self.loop.stop()
