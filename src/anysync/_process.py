"""What this process has of ours, and what becomes of it at a fork and at exit."""

import asyncio
import atexit
import os
import sys
import threading
import weakref
from _thread import get_ident
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from ._calls import keep_for_good
from ._core import be_direct, default_backend, load, spin_seconds, thread
from ._stalls import watch

if TYPE_CHECKING:
    from ._host import Host
    from ._kept_host import KeptHost
    from ._on_asyncio import Loop
    from ._thread_host import ThreadHost


class Process:
    """What this process has of ours. A forked child starts afresh, with the same defaults."""

    def __init__(self) -> None:
        #: where plain sync code runs its coroutines
        self.backend = default_backend
        #: whether worker threads of anyio's and trio's are served by the loop that waits for them
        self.go_home = True
        #: how loops of each backend are made: as `asyncio.Runner` takes it, and as `trio.run`
        self.defaults: dict[str, dict[str, Any]] = {"asyncio": {}, "trio": {}}
        #: whether `exit` has been called, or never will be
        self.exiting: bool = getattr(threading, "_SHUTTING_DOWN", False)
        #: until when `exit` waits for a daemon thread to end its call
        self.patience = 0.0
        self.start_afresh()

    def start_afresh(self) -> None:
        self.pid = os.getpid()
        #: by their `id`: unlike a set, a dictionary tells what is in it while other threads change that
        self._hosts: weakref.WeakValueDictionary[int, Host] = weakref.WeakValueDictionary()
        #: those of threads that Python has buried in a child, before `forked`
        self.orphans: list[Host] = []
        #: those that `exit` waits for: of a subinterpreter, whose end is fatal before theirs, and helpers
        #: that close what garbage collection has left to them
        self.threads: set[threading.Thread] = set()
        #: those of all hosts, by the thread that is about to fork
        self.tasks: dict[int, set[asyncio.Task[Any]]] = {}
        vars(thread).clear()
        self.main_thread = threading.main_thread().ident
        #: the background threads, one for each backend
        self.background: dict[str, ThreadHost] = {}
        #: loops of nested calls, to be used again: to make one takes as long as the rest of such a call
        self.spare: list[Loop] = []
        #: hosts whose thread has been made, and has not begun to serve
        self.newborn: set[ThreadHost] = set()
        #: held to start a background thread; reentrant, since garbage collection may come back here
        self.starting = threading.RLock()

    def add(self, host: "Host") -> None:
        self._hosts[id(host)] = host

    def discard(self, host: "Host") -> None:
        self._hosts.pop(id(host), None)

    def hosts(self) -> "list[Host]":
        return [host for reference in self._hosts.valuerefs() if (host := reference()) is not None]

    def busy(self) -> "KeptHost | None":
        """Return the kept host that this thread is driving; forget one that an interrupt left marked."""
        if thread.busy is None:
            return None
        host, driving = thread.busy
        frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
        while frame is not None and frame is not driving:
            frame = frame.f_back
        if frame is not None:
            return host
        host.recover()
        thread.busy = None
        return None

    def newborn_here(self) -> "ThreadHost | None":
        """Return the host whose thread this is, if it does not serve yet: garbage is collected there too."""
        here = get_ident()
        # not `enumerate`, whose lock a signal handler that breaks in may have others wait for
        known = vars(threading)["_active"].get(here)
        nameless = known is None or isinstance(known, threading._DummyThread)  # pyright: ignore[reportPrivateUsage]
        for host in self.newborn.copy():
            ident = host.thread.ident
            if ident == here or (ident is None and nameless):
                return host
        return None

    def about_to_fork(self) -> None:
        """Note which tasks there are, which since Python 3.14 the child cannot be told."""
        self.tasks[get_ident()] = {task for host in self.hosts() for task in asyncio.all_tasks(host.loop)}

    def has_forked(self) -> None:
        """In the parent: forget the tasks."""
        self.tasks.pop(get_ident(), None)

    def is_not_ours(self) -> bool:
        """Whether this process is a child in which `forked` has yet to be called."""
        return os.getpid() != self.pid

    def forked(self) -> None:
        """In the child: give up the parent's hosts, whose threads are not here."""
        for host in self.hosts():
            with suppress(AttributeError):  # another thread's garbage collection was taking it apart
                host.give_up("this object lives in the process that forked this one: make a new one here")
        for task in self.tasks.get(get_ident(), ()):
            keep_task(task)
        for loop in self.spare:
            loop.shut()
        self.start_afresh()

    def exit(self) -> None:
        """Close all hosts: kept loops first, since their clean-up may still call into the background."""
        self.exiting = True
        self.patience = monotonic() + 1
        for host in sorted(self.hosts(), key=lambda host: host.exit_order):
            with suppress(AttributeError, RuntimeError):  # a daemon thread is just making it
                host.close()
        for ours in self.threads.copy():
            ours.join()


def keep_task(task: "asyncio.Task[Any]") -> None:
    """Never let a task be collected, nor complain that it is pending."""
    keep_for_good(task)
    cast("Any", task)._log_destroy_pending = False


load(spin_seconds, watch)
be_direct(default_backend == "asyncio")
process = Process()
atexit.register(process.exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=process.forked)
    if sys.version_info >= (3, 14):
        os.register_at_fork(before=process.about_to_fork, after_in_parent=process.has_forked)
