"""An async generator that streams lines over HTTP, as a plain `for`: in a script, and inside a running loop.

Run it with `python examples/streaming_lines.py`; it needs httpx, starlette and uvicorn.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from anysync import anysync


async def count_down(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(request.path_params["start"], 0, -1):
            yield f"{number}\n"
            await asyncio.sleep(0)
        yield "lift-off\n"

    return StreamingResponse(lines(), media_type="text/plain")


app = Starlette(routes=[Route("/{start:int}", count_down)])


@anysync
async def stream(url: str) -> AsyncIterator[str]:
    """Yield the lines of a page as they come."""
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", url) as response:
        async for line in response.aiter_lines():
            yield line


def show(where: str, url: str) -> None:
    """Sync code, which need not know whether a loop is running."""
    for line in stream(url):
        print(f"{where}: {line}")


async def inside_a_loop(url: str) -> None:
    show("in a loop", url)
    print("async for:", [line async for line in stream(url)])


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        show("in a script", f"{url}/3")
        asyncio.run(inside_a_loop(f"{url}/3"))
        for line in stream(f"{url}/1000000"):
            print("left early:", line)
            break
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


if __name__ == "__main__":
    main()
