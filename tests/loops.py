"""What tests ask of the loop that runs, of asyncio or of trio, where anyio has no word for it."""

import asyncio
from asyncio import _get_running_loop as asyncio_loop

import anyio


def trio():
    """Return trio: scenarios on asyncio, each a process of its own, do without the time that it takes."""
    import trio

    return trio


def current_task():
    """Return the task itself: anyio knows tasks by their ids, which are given out again."""
    return asyncio.current_task() if asyncio_loop() else trio().lowlevel.current_task()


def this_loop():
    """Return the loop, or what trio has in its place."""
    return asyncio_loop() or trio().lowlevel.current_trio_token()


def call_soon(function, *args):
    """Have this loop call a function in its next turn."""
    (asyncio_loop().call_soon if asyncio_loop() else this_loop().run_sync_soon)(function, *args)


def post(loop, function):
    """Have a loop call a function, from any thread; `RuntimeError` if it has ended."""
    getattr(loop, "call_soon_threadsafe" if hasattr(loop, "call_soon") else "run_sync_soon")(function)


def leave_behind(function):
    """Start a task that nobody waits for."""
    return asyncio.create_task(function()) if asyncio_loop() else trio().lowlevel.spawn_system_task(function)


async def shielded(function, *args):
    """Await `function(*args)` in clean-up, which trio would cancel too."""
    with anyio.CancelScope(shield=True):
        return await function(*args)


# the library's own, beside anyio's


def own_group():
    return asyncio.TaskGroup() if asyncio_loop() else trio().open_nursery()


def own_timeout(seconds):
    return asyncio.timeout(seconds) if asyncio_loop() else trio().fail_after(seconds)


def __getattr__(name):
    if name == "CANCELS":
        return asyncio.CancelledError, trio().Cancelled
    if name == "TIMEOUTS":  # what the timeouts of either raise
        return TimeoutError, trio().TooSlowError
    raise AttributeError(name)


def start(group, function):
    """Start a child in a task group of any kind."""
    if isinstance(group, asyncio.TaskGroup):
        group.create_task(function())
    else:
        group.start_soon(function)


class enter_either:
    """Enter a context manager of either kind with `async with`."""

    def __init__(self, manager):
        self.manager = manager

    async def __aenter__(self):
        if hasattr(self.manager, "__aenter__"):
            return await self.manager.__aenter__()
        return self.manager.__enter__()

    async def __aexit__(self, *error):
        if hasattr(self.manager, "__aexit__"):
            return await self.manager.__aexit__(*error)
        return self.manager.__exit__(*error)
