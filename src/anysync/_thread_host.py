"""A loop on a thread of its own: the background one, a nested one, a `Runner`'s."""

import asyncio
import sys
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from ._calls import Session, see_through
from ._core import BaseCall, Mailbox, running, thread
from ._host import Host, new_loop, new_thread, start
from ._on_asyncio import Loop, mailbox_loop
from ._process import process

if TYPE_CHECKING:
    from ._pyloop import Coro


class ThreadHost(Host):
    """A loop on a thread of its own: the background one, a nested one, a `Runner`'s.

    Guarantees. Only its thread touches the loop; everybody else posts. It survives whatever a task
    raises.
    """

    exit_order = 1
    _transient = False

    def __init__(self, name: str, backend: str = "asyncio", *, options: dict[str, Any] | None = None) -> None:
        make_loop = _spare_loop if self._transient else mailbox_loop
        super().__init__(backend, *new_loop(backend, make_loop, options, mailbox=True))
        #: of each task that runs here, by backend
        self._nested: weakref.WeakKeyDictionary[Any, dict[str, NestedHost]] = weakref.WeakKeyDictionary()
        self._serving = True
        self._told = False
        self._ident = 0
        self._mailbox: Mailbox = getattr(self.loop, "mailbox", None) or Mailbox(None, self._ring)
        self.thread = new_thread(name, self._main)
        process.newborn.add(self)
        try:
            start(self.thread)
        except RuntimeError as error:
            process.newborn.discard(self)
            process.discard(self)
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
        if self.backend == "asyncio" and "trio" in sys.modules:  # whose name callers' contexts may hold
            self._told = True
            tell_library()
        while self.gone is None:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                pass
            except BaseException as error:  # trio does not survive all that goes wrong in it
                self.gone = f"the event loop that this object lived on has failed: {error!r}"
            self._mailbox.publish()
        if self.given_up:  # a step has forked, and this is the child: it ends with its only thread
            return
        self._serving = False
        self._mailbox.shut(self.gone)
        if self.backend == "asyncio" and not isinstance(self.loop, Loop):
            # it may have put off a stop, which would break off its closing
            with suppress(RuntimeError, KeyboardInterrupt, SystemExit):
                self.loop.run_until_complete(asyncio.sleep(0))
        for call in self.open.copy():
            if isinstance(call, BaseCall):
                call.instead = self.reason_to_stop(call)
        try:
            if not (self._transient and _spared(self.loop)):
                self._close_loop()
        finally:
            self._mailbox.sweep()

    def tell_library(self) -> None:
        """Have code in this thread see that asyncio runs it, whatever its caller's context says."""
        if self.backend == "asyncio" and not self._told:
            self._mailbox.post(None, tell_library)
            self._told = True  # not before: the call of another thread would come first

    def nested(self, backend: str) -> "NestedHost":
        """Return the host for a sync call that this cannot serve: the running task's own while it has one."""
        task = current_task()
        hosts = {} if task is None else self._nested.setdefault(task, {})
        host = hosts.get(backend)
        if host is None or not host.expect():
            awaited = self is process.background.get(self.backend)
            host = hosts[backend] = NestedHost("anysync nested", backend, awaited=awaited)
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
            if self._transient:
                self.end_if_unused()

    def post(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        self._mailbox.post(call, job)

    def end_if_unused(self) -> None:
        raise NotImplementedError

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


class NestedHost(ThreadHost):
    """Serves one task, or one call; ends with the last thing that was open on it.

    Guarantees. It does not end between `expect` and the `run`, `submit` or `session` that follows: `_lock`
    orders the two, and is held for some lines only. It is reentrant, since garbage collection may come back
    here. A session is open from the beginning, until it has ended or been forgotten.

    What it runs must not wait for the background thread if that has `awaited` it. Other threads, to which a
    coroutine hands a function with its context, learn that from the context.
    """

    _transient = True

    def __init__(self, name: str, backend: str, *, awaited: bool) -> None:
        self._awaited = awaited
        self._lock = threading.RLock()
        #: how many have been given this host, and have not begun yet
        self._expected = 1
        super().__init__(name, backend)

    def expect(self) -> bool:
        """Have the host not end before one more thing has begun; false if it has ended."""
        with self._lock:
            if self.gone is not None:
                return False
            self._expected += 1
            return True

    def run(self, coro: "Coro", timeout: float | None, context: Context | None) -> Callable[[], Any]:
        try:
            return super().run(coro, timeout, self._marked(context))
        finally:
            self._has_come()
            self.end_if_unused()

    def submit(self, coro: "Coro", context: Context | None) -> "Future[Any]":
        try:
            return super().submit(coro, self._marked(context))
        finally:
            self._has_come()

    def session(self, context: Context | None = None, **options: Any) -> Session:
        session = super().session(self._marked(context), **options)
        self.open.add(session)
        self._has_come()
        return session

    def _marked(self, context: Context | None) -> Context | None:
        if self._awaited:
            context = copy_context() if context is None else context
            with suppress(RuntimeError):  # it is entered, and will be refused
                context.run(_awaited.set, weakref.ref(self))
        return context

    def forget(self, session: Session) -> None:
        self.open.discard(session)
        self.end_if_unused()

    def closed(self, thing: object) -> None:
        super().closed(thing)
        self._end()

    def end_if_unused(self) -> None:
        """End unless there is something open, and wait for the end."""
        self._end()
        if self.gone is not None and not self.open:
            self.close()

    def _has_come(self) -> None:
        with self._lock:
            self._expected -= 1
        self._end()

    def _end(self) -> None:
        if self.gone is not None:
            return
        with self._lock:
            if self.open or self._expected or self.gone is not None:
                return
            self.gone = "the thread that this object lived on has ended"
        self._stop(self.gone)


_awaited: ContextVar["weakref.ref[NestedHost] | None"] = ContextVar("anysync awaited", default=None)


def awaited() -> NestedHost | None:
    """Return the host that the background thread waits for, if the code that runs here is part of that."""
    reference = _awaited.get()
    host = None if reference is None else reference()
    return None if host is None or host.gone is not None else host


def tell_library() -> None:
    import sniffio  # which has been imported by trio

    sniffio.thread_local.name = "asyncio"


def current_task() -> object | None:
    """Return the task that runs here, asyncio's or trio's."""
    library = running()
    if isinstance(library, asyncio.AbstractEventLoop):
        return asyncio.current_task()
    if library == "trio":
        from trio import lowlevel

        return lowlevel.current_task() if lowlevel.in_trio_task() else None
    return None


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
