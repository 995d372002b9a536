"""Which host serves a caller."""

import sys

from ._core import running, thread
from ._host import Host, process
from ._kept_host import Keeper, KeptHost
from ._thread_host import ThreadHost, awaited


def here() -> Host:
    """Return the host that serves a call made here: the documentation's table, row by row."""
    if (thread.busy is None or process.busy() is None) and running() is None:
        kept = thread.kept
        return _keep() if kept is None or kept.gone is not None else kept
    if thread.server is not None:
        return thread.server.nested()
    newborn = process.newborn_here() if process.newborn else None
    host = newborn or awaited()
    return background() if host is None else host.nested()


def background() -> ThreadHost:
    """Return the host that serves sync code inside loops which are not ours, started on first use."""
    if process.exiting and sys.is_finalizing():
        process.background = None  # its thread does not run any more
    host = process.background
    if host is not None and host.gone is None:
        return host
    with process.starting:
        host = process.background
        if host is None or host.gone is not None:
            host = ThreadHost("anysync background")
            if process.background is None or process.background.gone is not None:
                process.background = host
            else:  # garbage collection was here meanwhile
                host.close()
                host = process.background
        return host


def _keep() -> KeptHost:
    if process.exiting:  # nobody would close it
        return KeptHost(transient=True)
    thread.kept = host = KeptHost()
    thread.keeper = Keeper(host)
    return host
