"""A loop on a thread of its own: the background one, a nested one, a `Runner`'s."""

import asyncio
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ._calls import see_through
from ._core import BaseCall, Mailbox, running, thread
from ._host import Host, new_thread, process
from ._on_asyncio import Loop, mailbox_loop


class ThreadHost(Host):
    """A loop on a thread of its own: the background one, a nested one, a `Runner`'s.

    Guarantees. Only its thread touches the loop; everybody else posts. It survives whatever a task
    raises. A transient host ends with the last thing that was open on it.
    """

    exit_order = 1

    def __init__(self, name: str, *, transient: bool = False, options: dict[str, Any] | None = None) -> None:
        super().__init__(_spare_loop if transient else mailbox_loop, options)
        self._transient = transient
        self._nested: weakref.WeakKeyDictionary[asyncio.Task[Any], ThreadHost] = weakref.WeakKeyDictionary()
        self._serving = True
        self._ident = 0
        self._mailbox: Mailbox = getattr(self.loop, "mailbox", None) or Mailbox(None, self._ring)
        self.thread = new_thread(name, self._main)
        process.newborn.add(self)
        try:
            self.thread.start()
        except RuntimeError as error:
            process.newborn.discard(self)
            process.hosts.discard(self)
            self.gone = str(error)
            self.loop.close()
            raise RuntimeError(f"sync code inside an event loop needs a thread of its own: {error}") from None

    def _ring(self) -> None:
        with suppress(RuntimeError):  # closed, and swept
            self.loop.call_soon_threadsafe(self._mailbox.serve)

    def _main(self) -> None:
        thread.server = self
        self._ident = get_ident()
        process.newborn.discard(self)
        while self.gone is None:
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
            self._mailbox.publish()
        self._serving = False
        self._mailbox.shut(self.gone)
        if not isinstance(self.loop, Loop):  # it may have put off a stop, which would break off its closing
            with suppress(RuntimeError, KeyboardInterrupt, SystemExit):
                self.loop.run_until_complete(asyncio.sleep(0))
        for call in self.open.copy():
            if isinstance(call, BaseCall):
                call.instead = RuntimeError(self.gone)
        try:
            if not (self._transient and _spared(self.loop)):
                self._close_loop()
        finally:
            self._mailbox.sweep()

    def nested(self) -> "ThreadHost":
        """Return the host for a sync call made on this thread: the running task's own while it has one."""
        task = asyncio.current_task() if running() is self.loop else None
        host = None if task is None else self._nested.get(task)
        if host is None or host.gone is not None:
            host = ThreadHost("anysync nested", transient=True)
            if task is not None:
                self._nested[task] = host
        return host

    def perform(self, call: BaseCall) -> None:
        if get_ident() == self._ident:
            call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
            return
        self.open.add(call)
        try:
            self._mailbox.perform(call)
        except BaseException as error:
            see_through(call, self._mailbox.perform, error)
        finally:
            self.open.discard(call)
            if self._transient and not self.open:
                self.close()

    def post(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        self._mailbox.post(call, job)

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._transient and not self.open and self.gone is None:
            self._stop("the thread that this object lived on has ended")

    def close(self, reason: str = "the thread that this object lived on has ended") -> None:
        if self.gone is None:
            self._stop(reason)
        if get_ident() != self._ident:
            self.thread.join()

    def give_up(self, reason: str) -> None:
        super().give_up(reason)
        self._mailbox = Mailbox(None, self._ring)
        self._mailbox.shut(reason)
        self._mailbox.sweep()

    def _stop(self, reason: str) -> None:
        self.gone = reason
        self._mailbox.shut(reason)
        self._mailbox.post(None, self._stop_serving)

    def _stop_serving(self) -> None:
        if self._serving:  # else the thread has seen `gone` by itself, and is closing the loop
            self.loop.stop()


def _spare_loop() -> Loop:
    """Return a loop that has been used, if there is one that is still as new, else a new one."""
    while True:
        try:
            loop = process.spare.pop()
        except IndexError:
            return mailbox_loop()
        if loop.as_new:
            return mailbox_loop(loop)
        loop.close()  # another thread has found it, and left something


def _spared(loop: asyncio.AbstractEventLoop) -> bool:
    """Keep a loop for the next nested call if it is as good as new; false if it is to be closed."""
    if not isinstance(loop, Loop) or process.exiting or len(process.spare) > 3 or not loop.as_new:
        return False
    process.spare.append(loop)
    return True
