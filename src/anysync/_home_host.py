"""The loop that waits for a worker thread of anyio's or trio's: where sync code in that thread is at home."""

from _thread import get_ident
from asyncio import AbstractEventLoop, CancelledError, Task
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from importlib import import_module
from math import inf
from sys import modules
from typing import Any

from ._calls import Session, interrupted
from ._core import BaseCall, Step, raise_as_is, running, thread
from ._home_call import Guest, HomeCall
from ._host import Host, lacks_room, on_trio
from ._process import process

#: what anyio and trio may put on the stack before the loop hears of a call: short of it, trio waits for ever
FRAMES = 40


class HomeHost(Host):
    """A loop that is somebody else's, as far as one worker thread of its has to do with it.

    Guarantees. Everything of ours there begins in the loop's own thread, to which `post` leads. A call of the
    worker thread is seen to by a task in the cancel scope in which the loop waits for that thread, and is
    cancelled with it. While a session is open, a guard, a task too, learns that the loop comes to its end,
    and has the session end, which would wait for its next step for ever, and the loop for the session.
    """

    exit_order = 0

    def __init__(self, backend: str, native: Any) -> None:
        loop: Any = native
        #: anyio, or trio itself, whose names are the same
        self._library: Any = None
        if backend == "trio":
            loop = on_trio().HomeOnTrio(native)
            self._library = on_trio().trio
        else:
            self._library = import_module("anyio")
            import_module("anyio.from_thread")
            import_module("anyio.to_thread")
        super().__init__(backend, loop, self._nothing_to_end)
        if backend == "asyncio":
            self._call_type = HomeCall
        self.native = native
        self._guard: Task[None] | None = None
        self._dismissed = 0
        #: the host of the loop, where that is one of ours which is kept
        self._owner = next((host for host in process.hosts() if _is_of(host, native)), None)

    def _keep_turning(self, thing: object) -> None:
        """Have a loop of ours be turned until something has ended, also when nobody waits for that."""
        if self._owner is not None:
            self._owner.open.add(thing)
            self._owner.wake()

    def _nothing_to_end(self) -> None: ...

    def perform(self, call: BaseCall) -> None:
        if self.gone is not None:
            call.abort(RuntimeError(self.gone))
        elif running() is self.loop or (self.backend == "trio" and self._runs_here()):
            call.abort(RuntimeError("would wait for itself: this object lives on the loop that runs here"))
        elif running() is None and _token() is self.native:
            if lacks_room(call, FRAMES):
                return
            self._keep_turning(call)
            try:
                self._library.from_thread.run(self._see_to, call)
            except RuntimeError:
                call.abort(RuntimeError("the loop that waits for this thread has just ended"))
            except BaseException as error:
                if call.result is not None:
                    raise
                call.abort(error)  # cancelled before it has begun
            finally:
                if self._owner is not None:
                    self._owner.open.discard(call)
                    with suppress(RuntimeError):  # closed just now
                        self._owner.loop.call_soon_threadsafe(self._owner.closed, call)
        else:  # another thread steps what this one has begun
            self.perform_elsewhere(call)

    def _runs_here(self) -> bool:
        from trio import lowlevel

        return lowlevel.in_trio_run() and lowlevel.current_trio_token() is self.native

    async def _see_to(self, call: BaseCall) -> None:
        """Take `call` to its end, in a task that is cancelled when the loop is not to wait for its thread."""
        library = self._library
        done, limiter = library.Event(), library.to_thread.current_default_thread_limiter()
        call.on_done = done.set
        limiter.total_tokens += 1  # the thread that waits has one, and the call may need a thread too
        with library.CancelScope() as scope:
            if isinstance(call, HomeCall):
                call.guest = Guest(scope)
            elif isinstance(call, Step) and self.backend == "asyncio":
                guest = Guest(scope)
                call.function = partial(guest.step, call.function)
                call.on_done = partial(_leave, guest, done)
            # not in this task, which an eager step would suspend
            self.loop.call_soon(call.begin, context=Context())
            if library.current_effective_deadline() == -inf:  # which nobody tells a task that comes later
                scope.cancel()
            try:
                await done.wait()
            except BaseException as error:  # a cancel, or a Ctrl-C that trio raises in this very task
                task = call.session.task if isinstance(call, Step) else call.task
                scoped = library.current_effective_deadline() == -inf
                if scoped and self.backend == "asyncio":
                    scope.cancel()  # and with it its guest
                elif self.backend == "trio":  # once it has begun: it may be shielded
                    self.loop.call_soon(call.cancel, context=Context())
                elif task is None:  # a loop of asyncio's that ends cancels both
                    call.cancel()
                while call.result is None:  # the loop may end meanwhile
                    with suppress(CancelledError), library.CancelScope(shield=True):
                        await done.wait()
                if not isinstance(error, self._session_type.cancels):
                    interrupted(call, error)
                    raise
                result: Any = call.result
                if isinstance(result, partial) and isinstance(result.args[0], CancelledError):
                    call.result = partial(raise_as_is, error)  # by which its scope knows it
            finally:
                limiter.total_tokens = max(1, limiter.total_tokens - 1)  # which may have been set meanwhile

    def post(self, call: BaseCall, job: Callable[[], object] | None = None) -> None:
        try:
            if self.gone is not None:
                raise RuntimeError
            self.loop.call_soon_threadsafe(job or call.begin, context=Context())
        except RuntimeError:
            call.abort(RuntimeError(self.gone or "the loop that this object lived on has ended"))

    def session(self, context: Context | None = None, **options: Any) -> Session:
        session = super().session(context, **options)
        self.open.add(session)
        self._keep_turning(session)
        self.loop.call_soon_threadsafe(self._set_guard, context=Context())
        return session

    def _set_guard(self) -> None:
        if self._guard is None:
            self._guard = self.loop.create_task(self._stand_guard(self._dismissed), context=Context())

    async def _stand_guard(self, number: int) -> None:
        try:
            await self._library.sleep_forever()
        finally:
            sessions = self._sessions()
            if number < self._dismissed:
                sessions.clear()  # they have a guard of their own
            if sessions:
                self.gone = "the loop that this object lived on has ended"
            for call in self.posted.copy():
                if isinstance(call, Step) and not call.begun:  # as it may never be, from now on
                    call.abort(RuntimeError(self.gone))
            for session in sessions:
                if session.foreign:
                    session.go_on()
                elif session.task is not None and session.current is None and not session.leaving:
                    session.task.cancel()  # the loop's end has cancelled those in a step, which is the last

    def opened(self, thing: object) -> None:
        super().opened(thing)
        self._keep_turning(thing)

    def closed(self, thing: object) -> None:
        super().closed(thing)
        if self._owner is not None:
            self._owner.closed(thing)
        if self._guard is not None and not self._sessions():
            self._dismissed += 1
            self._guard.cancel()
            self._guard = None

    def _sessions(self) -> list[Session]:
        return [thing for thing in self.open.copy() if isinstance(thing, Session)]

    def forget(self, session: Session) -> None:
        if session in self.open and self.gone is None:
            self.loop.call_soon_threadsafe(self.closed, session, context=Context())

    def close(self) -> None:
        """Serve no longer: the loop is not ours to close."""
        self.gone = self.gone or "the interpreter is shutting down"


def _leave(guest: Guest, done: Any) -> None:
    guest.leave()
    done.set()


def _is_of(host: Host, native: Any) -> bool:
    return host.keeps and native in (host.loop, getattr(host.loop, "token", None))


def _token() -> Any:
    """Return the loop, or trio's token, that waits for this thread, if it is a worker thread."""
    library = modules.get("anyio._core._eventloop")
    locals_ = getattr(library, "threadlocals", None)  # which is not there while the module is in the making
    token = getattr(locals_, "current_token", None)
    if token is not None:
        return getattr(token, "native_token", token)  # which was the token itself before anyio 4.11
    locals_ = getattr(modules.get("trio._threads"), "PARENT_TASK_DATA", None)
    return getattr(locals_, "token", None)


def home(backend: str | None) -> HomeHost | None:
    """Return the host of the loop that waits for this thread, if there is one, of that backend."""
    native = _token()
    if native is None or not process.go_home or get_ident() == process.main_thread:
        return None  # the main one is no worker, but in the child of a worker that has forked
    found = "asyncio" if isinstance(native, AbstractEventLoop) else "trio"
    if backend not in (None, found) or not _waits(native):
        return None
    host: HomeHost | None = thread.home
    if host is None or host.native is not native or host.gone is not None:
        thread.home = host = HomeHost(found, native)
    return host


def _waits(native: Any) -> bool:
    """Whether the loop is there, and waits for this thread."""
    if not isinstance(native, AbstractEventLoop):
        try:
            native.run_sync_soon(int, idempotent=True)
        except RuntimeError:  # the run has ended
            return False
        return True
    locals_: Any = modules["anyio._core._eventloop"].threadlocals
    scope = getattr(locals_, "current_cancel_scope", None)
    return native.is_running() and getattr(scope, "_active", True)
