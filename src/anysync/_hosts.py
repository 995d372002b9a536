"""Which host serves a caller."""

import sys

from ._core import running, thread
from ._home_host import home
from ._host import Host
from ._kept_host import Keeper, KeptHost
from ._process import process as process
from ._thread_host import ThreadHost, awaited


def here(backend: str | None = None) -> Host:
    """Return the host that serves a call made here: the documentation's table, row by row."""
    busy = None if thread.busy is None else process.busy()  # first: it may undo what an interrupt left
    library = running()
    if busy is None and library is None:
        at_home = home(backend)
        if at_home is not None:
            return at_home
        backend = backend or process.backend
        kept = thread.kept if backend == "asyncio" else thread.kept_on_trio
        if kept is not None and kept.loop.is_closed():
            kept.close()  # its loop was closed by somebody else; or a run of trio's was ended by an exception
        return _keep(backend) if kept is None or kept.gone is not None else kept
    if library != "trio" and "trio" in sys.modules and library_here() == "trio":  # as a guest of that loop
        library = "trio"
    backend = backend or ("trio" if library == "trio" else "asyncio")
    if thread.server is not None:
        host: ThreadHost = thread.server.nested(backend)
    else:
        waits = (process.newborn_here() if process.newborn else None) or awaited()
        host = background(backend) if waits is None else waits.nested(backend)
    if library == "trio" and backend == "asyncio":
        host.tell_library()
    return host


def library_here() -> str | None:
    """Return the name of the library whose task runs here, which need not be the loop's."""
    sniffio = sys.modules.get("sniffio")
    return getattr(getattr(sniffio, "thread_local", None), "name", None)


def background(backend: str) -> ThreadHost:
    """Return the host that serves sync code inside loops which are not ours, started on first use."""
    if process.exiting and sys.is_finalizing():
        process.background.clear()  # their threads do not run any more
    host = process.background.get(backend)
    if host is not None and host.gone is None:
        return host
    with process.starting:
        host = process.background.get(backend)
        if host is None or host.gone is not None:
            host = ThreadHost("anysync background", backend)
            other = process.background.get(backend)
            if other is None or other.gone is not None:
                process.background[backend] = host
            else:  # garbage collection was here meanwhile
                host.close()
                host = other
        return host


def _keep(backend: str) -> KeptHost:
    if process.exiting:  # nobody would close it
        return KeptHost(backend, transient=True)
    host = KeptHost(backend)
    if backend == "asyncio":
        thread.kept, thread.keeper = host, Keeper(host)
    else:
        thread.kept_on_trio, thread.keeper_on_trio = host, Keeper(host)
    return host
