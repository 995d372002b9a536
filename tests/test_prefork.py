"""A server that loads its app before it forks: gunicorn, whose sync workers make async calls."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import scripts

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

THREADS = 8

APP = """
import asyncio, os, sys, threading
sys.path.append({tests!r})
import anysync, httpx, scripts

scripts.watch()
scripts.quick_loops()
url = "http://127.0.0.1:{port}"
clients, runner, made_here = {{}}, anysync.Runner("clients"), os.getpid()

def key():
    return {key}

@anysync.coroutine
async def get(path):
    client = clients.get(key())
    if client is None:
        client = clients[key()] = httpx.AsyncClient(trust_env=False)
    response = await client.get(url + path)
    return response.text

@anysync.generator
async def parts(path):
    yield (await get(path)).encode()
    await asyncio.sleep(0)
    yield b" from a child" if os.getpid() != made_here else b" from the parent"

def call(path):
    return {call}

# everything is warm when the server forks
assert get("/warm").run() == "/warm"
assert scripts.in_loop(lambda: anysync.run(asyncio.sleep(0, 1))) == 1
assert list(parts("/warm")) == [b"/warm", b" from the parent"]
assert runner.run(asyncio.sleep(0, 1)) == 1
left_open = parts("/warm")
next(left_open)
{before}

def app(environ, start_response):
    try:
        body = call(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", str(len(body)))])
    except (RuntimeError, httpx.RemoteProtocolError) as error:
        body = repr(error).encode()
        start_response("500 Internal Server Error", [("Content-Length", str(len(body)))])
    return [body]
"""


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class _EchoServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Keep quiet about connections that a worker leaves when it ends."""


@pytest.fixture
def upstream():
    """Return the port of a server that answers with the path that is asked for."""
    with _EchoServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def serve(directory, upstream, options=(), requests=40, **app):
    """Ask a gunicorn with this app for many things at once; return the answers and what it logged."""
    source = APP.format(port=upstream, tests=os.path.dirname(os.path.abspath(__file__)), **app)
    (directory / "preforked.py").write_text(source)
    command = [sys.executable, *scripts.FORKS, "-m", "gunicorn", "preforked:app", "--preload", "--workers=2"]
    command += ["--bind=127.0.0.1:0", f"--chdir={directory}", "--graceful-timeout=20", "--no-control-socket"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::ResourceWarning"}
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, cwd=directory, env=environment
    )
    lines = []
    try:
        with process.stderr as stderr:
            for line in stderr:
                lines.append(line)
                if "Booting worker" in line and "".join(lines).count("Booting worker") == 2:
                    break
            listening = re.search(r"Listening at: http://127.0.0.1:(\d+)", "".join(lines))
            assert listening, "".join(lines)
            port = int(listening[1])
            with ThreadPoolExecutor(THREADS) as pool:
                answers = list(pool.map(lambda number: ask(port, f"/{number}"), range(requests)))
            process.send_signal(signal.SIGTERM)
            lines += stderr
        code = process.wait(2 * scripts.WATCHDOG)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert code == 0, "".join(lines)
    strange = [line for line in lines if not re.match(r"\[[-+: \d]+\] \[\d+\] \[INFO\] ", line)]
    assert strange == [], "".join(lines)
    return answers


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * scripts.WATCHDOG)
    connection.request("GET", path)
    response = connection.getresponse()
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


KINDS = {
    "sync": (["--worker-class=sync"], "get(path).run().encode()"),
    "in a loop": (["--worker-class=sync"], "scripts.in_loop(lambda: get(path).run()).encode()"),
    "iterated": (["--worker-class=sync"], "b''.join(parts(path))"),
    "threads": (["--worker-class=gthread", "--threads=4"], "runner.run(get(path)).encode()"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_workers_that_make_their_client_after_the_fork_answer_all_that_is_asked(kind, tmp_path, upstream):
    options, call = KINDS[kind]
    key, requests = "os.getpid(), asyncio.get_running_loop()", 200 if kind == "sync" else 40
    answers = serve(tmp_path, upstream, options, requests, key=key, call=call, before="")
    suffix = " from a child" if kind == "iterated" else ""
    assert answers == [(200, f"/{number}{suffix}") for number in range(requests)]


def test_workers_may_have_a_client_that_was_made_before_the_fork_and_not_used(tmp_path, upstream):
    made = "clients[True] = httpx.AsyncClient(trust_env=False)"
    key, call = "os.getpid() != made_here", "get(path).run().encode()"
    answers = serve(tmp_path, upstream, key=key, call=call, before=made)
    assert answers == [(200, f"/{number}") for number in range(len(answers))]


def test_workers_that_have_a_client_with_a_connection_of_their_parent_raise_and_do_not_wait(
    tmp_path, upstream
):
    answers = serve(tmp_path, upstream, key="0", call="get(path).run().encode()", before="")
    errors = {answer for status, answer in answers if status == 500}
    # the second is from anyio before 4.16: a worker that closes the connection shuts it for the other one too
    shut = "RemoteProtocolError('Server disconnected without sending a response.')"
    assert errors <= {"RuntimeError('Event loop is closed')", shut}
    for number, (status, answer) in enumerate(answers):
        assert status == 500 or answer == f"/{number}"
