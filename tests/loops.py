"""What tests ask of the loop that runs, of asyncio or of trio, where anyio has no word for it."""

import asyncio

import anyio
import sniffio


def current_task():
    """Return the task itself: anyio knows tasks by their ids, which are given out again."""
    if sniffio.current_async_library() == "asyncio":
        return asyncio.current_task()
    from trio import lowlevel

    return lowlevel.current_task()


def call_soon(function):
    """Have the loop call a function in its next turn."""
    if sniffio.current_async_library() == "asyncio":
        asyncio.get_running_loop().call_soon(function)
    else:
        from trio import lowlevel

        lowlevel.current_trio_token().run_sync_soon(function)


async def shielded(function, *args):
    """Await `function(*args)` in clean-up, which trio would cancel too."""
    with anyio.CancelScope(shield=True):
        return await function(*args)
