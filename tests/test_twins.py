"""The two cores: the same names and signatures, and the same behaviour of what only the rooms above use."""

import ast
import asyncio
import inspect
import subprocess
import sys
import threading
import traceback
import weakref
from pathlib import Path

import pytest
from scripts import PYPY

from anysync import _host, _pyloop, core
from anysync._stalls import watch

try:
    from anysync import _fastloop
except ImportError:
    _fastloop = None

compiled = pytest.param(
    _fastloop, id="compiled", marks=pytest.mark.skipif(_fastloop is None, reason="there is no extension")
)
WATCHDOG = 20


@pytest.fixture(params=[pytest.param(_pyloop, id="pure"), compiled])
def twin(request):
    """One core after the other, whichever runs in this process."""
    request.param.load(50e-6, watch)
    yield request.param
    request.param.load(50e-6, watch)


def names():
    """Return the names that the rooms above take from a core."""
    stub = ast.parse(Path(core.__file__).with_name("_fastloop.pyi").read_text())
    return {alias.name for imported in stub.body for alias in imported.names}


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_compiled_core_is_there_if_it_is_demanded():
    if core.name == "compiled":
        assert _fastloop is not None
        assert core.AnySyncCoroutine.__mro__[1].__module__ == "anysync._fastloop"
    else:
        assert core.AnySyncCoroutine.__mro__[1].__module__ == "anysync._pyloop"


@pytest.mark.skipif(_fastloop is None, reason="there is no extension")
def test_both_have_the_same_names_with_the_same_signatures():
    for name in sorted(names()):
        pure, fast = getattr(_pyloop, name), getattr(_fastloop, name)
        if not isinstance(pure, type):
            if inspect.isfunction(pure):
                assert parameters(pure) == parameters(fast), name
            continue
        for attribute, value in vars(pure).items():
            if attribute.startswith("_") and attribute not in ("__await__", "__call__"):
                continue
            assert hasattr(fast, attribute) or virtual(value), (name, attribute)
            if inspect.isfunction(value) and not virtual(value) and not attribute.startswith("_"):
                assert parameters(value) == parameters(getattr(fast, attribute)), (name, attribute)


def virtual(value):
    """Whether a method is left to a room above: the compiled core calls it without declaring it."""
    return inspect.isfunction(value) and "NotImplementedError" in value.__code__.co_names


@pytest.mark.skipif(_fastloop is None, reason="there is no extension")
def test_both_document_what_users_see():
    for name in "run", "send", "throw", "close":
        pure, fast = (getattr(twin.BaseCoroutine, name).__doc__ for twin in (_pyloop, _fastloop))
        assert inspect.cleandoc(pure) == inspect.cleandoc(fast)


def error_of(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_exception_is_raised_as_it_is(twin):
    error = KeyError("mine")
    cause = error.__cause__ = OSError()
    for _ in range(3):
        try:
            raise ValueError
        except ValueError:
            assert error_of(lambda: twin.raise_as_is(error)) is error
    if not PYPY:  # whose generators do as a `raise` statement
        assert error.__context__ is None
    assert error.__cause__ is cause
    assert len(traceback.extract_tb(error.__traceback__)) <= 2 * 3


def test_a_frame_is_dropped(twin):
    error = error_of(lambda: [][0])
    frames = len(traceback.extract_tb(error.__traceback__))
    twin.drop_frame(error)
    assert len(traceback.extract_tb(error.__traceback__)) == frames - 1
    twin.drop_frame(error.with_traceback(None))
    assert error.__traceback__ is None


def test_what_runs_here_is_known(twin):
    async def main():
        return twin.running()

    assert twin.running() is None
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(main()) is loop
    loop.close()
    trio = pytest.importorskip("trio")
    assert trio.run(main) == "trio"
    assert twin.running() is None


def test_a_latch_is_waited_for_until_it_is_opened(twin):
    latch, passed = twin.Latch(), threading.Event()

    def wait():
        latch.wait()
        passed.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not passed.is_set()
    latch()
    thread.join(WATCHDOG)
    assert passed.is_set()


def test_who_waits_for_a_call_is_watched_until_that_is_enough(twin):
    def tell(call, seconds):
        told.append((call, seconds))
        if len(told) < 2:
            return False
        threading.Timer(1, latch).start()  # time for three more looks
        return True

    told, latch, call = [], twin.Latch(), Begun(twin, [])
    twin.load(0, tell)
    latch.wait(call)
    assert [call for call, _ in told] == [call, call]
    assert 0 < told[0][1] < told[1][1]


def test_one_thread_drives_at_a_time(twin):
    class Host(twin.Drive):
        own_loop = None

    host = Host()
    assert not host.driven()
    assert host.try_to_drive()
    assert host.try_to_drive()  # again: an interrupt may have forgotten the first
    assert host.driven()
    others = []
    thread = threading.Thread(target=lambda: others.append(host.try_to_drive()))
    thread.start()
    thread.join(WATCHDOG)
    assert others == [False]
    assert host.hand_to(1)
    assert not host.try_to_drive()
    assert not host.hand_to(threading.get_ident())  # nor is it this thread's to give away
    host.stop_driving()
    assert host.driven()
    host = Host()
    host.try_to_drive()
    host.stop_driving()
    assert not host.driven()
    assert not host.at_once(None)  # it has no loop of ours


def test_a_mailbox_has_its_jobs_done_in_order(twin):
    done, rung = [], []
    mailbox = twin.Mailbox(None, lambda: rung.append("rung"))
    assert not mailbox.serve()
    for number in range(3):
        mailbox.post(None, lambda number=number: done.append(number))
    mailbox.post(None)
    assert rung == ["rung"] * 4  # nobody can tell whether a foreign loop waits
    assert [mailbox.serve() for _ in range(5)] == [True] * 4 + [False]
    assert done == [0, 1, 2]


def test_a_mailbox_that_was_swept_is_served_by_who_posts(twin):
    done = []
    mailbox = twin.Mailbox(None, list)
    mailbox.post(None, lambda: done.append("before"))
    mailbox.sweep()
    mailbox.post(None, lambda: done.append("after"))
    assert done == ["before", "after"]


class Begun:
    """What a mailbox needs of a call."""

    def __new__(cls, twin, log):
        class Call(twin.BaseCall):
            def begin(self):
                log.append("begun")

            def abort(self, error):
                log.append(str(error))

        return Call(None, None)


def test_once_a_mailbox_is_shut_no_call_begins(twin):
    log = []
    mailbox = twin.Mailbox(None, list)
    mailbox.post(Begun(twin, log))
    mailbox.serve()
    mailbox.shut("closed")
    mailbox.post(Begun(twin, log))
    mailbox.serve()
    assert log[1:] == ["closed"]
    assert log[:1] == ["begun"]


def test_a_wait_for_descriptors_is_rung_or_does_not_wait(twin):
    rung, timeouts = [], []

    def select(timeout):
        timeouts.append(timeout)
        mailbox.post(None)
        return []

    mailbox = twin.Mailbox(Loop(twin), lambda: rung.append("rung"))
    mailbox.post(None)
    assert rung == []  # nobody waits there
    assert mailbox.watched(select, 5) == []
    assert mailbox.serve()
    assert mailbox.serve()
    mailbox.watched(select, 5)
    assert timeouts == [0, 5]
    assert rung == ["rung"] * 2


class Loop:
    """What a mailbox needs of a loop."""

    _stopping = False

    def __init__(self, twin):
        self.state = twin.LoopState()
        self.state.ready = []
        self._scheduled = []


@pytest.mark.parametrize("change", ["ready", "stopping", "scheduled"])
def test_whatever_gives_the_loop_something_to_do_ends_the_wait_for_jobs(twin, change):
    def job():
        if change == "ready":
            loop.state.ready.append("callback")
        elif change == "stopping":
            loop._stopping = True
        else:
            loop._scheduled.append("timer")

    loop = Loop(twin)
    mailbox = twin.Mailbox(loop, list)
    mailbox.post(None, job)
    assert not mailbox.attend(None, {1: "own"})  # would wait for ever


def test_a_wait_for_jobs_ends_in_time_or_goes_on_in_the_kernel(twin):
    mailbox = twin.Mailbox(Loop(twin), list)
    assert not mailbox.attend(0, {1: "own"})
    assert not mailbox.attend(0.001, {1: "own"})
    assert mailbox.attend(None, {1: "own", 2: "a socket"})


def test_a_posted_call_is_waited_for(twin):
    class Call(twin.BaseCall):
        def begin(self):
            self.finish(lambda: "result")

    mailbox = twin.Mailbox(None, lambda: posted.set())
    posted = threading.Event()
    call = Call(None, None)

    def serve():
        posted.wait(WATCHDOG)
        mailbox.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    mailbox.perform(call)
    thread.join(WATCHDOG)
    assert call.take()() == "result"


@pytest.mark.parametrize("module", [_pyloop, _host])
def test_a_call_that_is_ended_just_when_its_latch_is_made_is_not_waited_for(module, monkeypatch):
    """By the thread of a loop that is closed: in the pure core it may run between any two lines."""

    class EndsTheCall(_pyloop.Latch):
        def __init__(self):
            super().__init__()
            call.finish(lambda: "result")

    class Host(_host.Host):
        def __init__(self): ...

        def post(self, call, job=None): ...

    monkeypatch.setattr(module, "Latch", EndsTheCall)
    call = _pyloop.BaseCall(None, None)
    perform = _pyloop.Mailbox(None, list).perform if module is _pyloop else Host()._post_and_wait
    thread = threading.Thread(target=perform, args=(call,), daemon=True)
    thread.start()
    thread.join(WATCHDOG)
    assert not thread.is_alive()
    assert call.take()() == "result"


async def value():
    return "value"


def test_a_coroutine_is_awaited_sent_to_thrown_into_and_closed(twin):
    async def forwards():
        return await twin.BaseCoroutine(value())

    assert asyncio.run(forwards()) == "value"
    with pytest.raises(StopIteration, match="value"):
        twin.BaseCoroutine(value()).send(None)
    with pytest.raises(KeyError):
        twin.BaseCoroutine(value()).throw(KeyError)
    coroutine = twin.BaseCoroutine(value())
    coroutine.close()
    assert asyncio.iscoroutine(coroutine)
    assert twin.BaseCoroutine[int, None, None].__args__ == (int, None, None)
    assert weakref.ref(coroutine)() is coroutine
    with pytest.raises(TypeError):
        twin.BaseCoroutine()


def test_an_awaitable_without_the_native_slots_is_awaited_too(twin):
    class Unchecked(twin.BaseCoroutine):
        def _check(self):
            pass

    class Other:
        def __await__(self):
            yield from ()
            return "other"

    async def forwards():
        return await Unchecked(Other())

    assert asyncio.run(forwards()) == "other"


def test_what_is_left_to_the_rooms_above_says_so(twin):
    coroutine = twin.BaseCoroutine(value())
    with pytest.raises(NotImplementedError):
        coroutine._run(None, None, None)
    coroutine.close()
    with pytest.raises(NotImplementedError):
        twin.BaseCoroutine(5)


def test_importing_a_core_imports_no_asyncio(twin):
    program = f"import sys, {twin.__name__}; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WATCHDOG)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_thread_state_is_each_threads_own(twin):
    twin.thread.kept = "mine"
    try:
        found = []
        thread = threading.Thread(target=lambda: found.append(twin.thread.kept))
        thread.start()
        thread.join(WATCHDOG)
        assert found == [None]
    finally:
        del twin.thread.kept
