"""The first sync call works and the second one says "Event loop is closed".

encode/httpx#2473 and replicate/replicate-python#217: a loop per call, while the connections that a client
keeps belong to the loop of the first one.
"""

import contextlib
import socketserver
import threading

import pytest
import scripts
from scripts import in_loop, raised, script

import anysync

pytest.importorskip("httpx")

places = pytest.mark.parametrize("place", ["plainly", "in_loop"])


class KeepAlive(socketserver.StreamRequestHandler):
    """Answers one request after the other on a connection, and counts connections."""

    def handle(self):
        self.server.connections += 1
        with contextlib.suppress(ConnectionError):
            while self.rfile.readline().strip():
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@contextlib.contextmanager
def web_server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), KeepAlive) as server:
        server.connections = 0
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def client_of(server, run=anysync.run):
    """Give a function that gets a page through a client which is made once and then kept."""
    import httpx

    async def get():
        return (await client.get("http://127.0.0.1:{1}".format(*server.server_address))).text

    client = httpx.AsyncClient(trust_env=False, verify=False)
    yield get
    run(client.aclose())


@places
@script
def test_01_a_client_keeps_its_connection_from_call_to_call(place):
    def call():
        with web_server() as server, client_of(server) as get:
            assert [anysync.run(get()) for _ in range(3)] == ["hello"] * 3
            assert server.connections == 1

    getattr(scripts, place)(call)


@script
def test_01_a_client_keeps_its_connection_from_loop_to_loop():
    with web_server() as server, client_of(server, lambda coro: in_loop(lambda: anysync.run(coro))) as get:
        assert [in_loop(lambda: anysync.run(get())) for _ in range(3)] == ["hello"] * 3
        assert server.connections == 1


def in_two_threads(call):
    """Call in two threads, one after the other, and return both results."""
    results = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: results.append(call()))
        thread.start()
        thread.join()
    return results


@script
def test_01_threads_in_turn_keep_a_connection_where_they_share_a_loop():
    def call(get):
        return in_loop(lambda: anysync.run(get()))

    with web_server() as server, client_of(server, lambda coro: in_loop(lambda: anysync.run(coro))) as get:
        assert in_two_threads(lambda: call(get)) == ["hello"] * 2
        assert call(get) == "hello"
        assert server.connections == 1


@places
@script
def test_01_threads_in_turn_keep_a_connection_through_a_runner(place):
    with anysync.Runner() as runner, web_server() as server, client_of(server, runner.run) as get:
        assert in_two_threads(lambda: getattr(scripts, place)(lambda: runner.run(get()))) == ["hello"] * 2
        assert runner.run(get()) == "hello"
        assert server.connections == 1


@script
def test_01_a_thread_with_a_loop_of_its_own_is_told_that_the_connection_belongs_to_another():
    def call():
        errors.append(raised(lambda: anysync.run(get(), timeout=10)))

    errors = []
    with web_server() as server, client_of(server) as get:
        assert anysync.run(get()) == "hello"
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert [type(error) for error in errors] == [RuntimeError]
        assert "is bound to a different event loop" in str(errors[0])
        assert anysync.run(get()) == "hello"
