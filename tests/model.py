"""The whole public API as a state machine: hypothesis looks for a sequence of uses that goes wrong.

    python tests/model.py --examples 5000 [--random]

Actors, threads that live through an example, do what the rules tell them: some in plain code, one inside a
running loop, one inside a coroutine that we drive in its own thread, one inside a coroutine on a runner.
Some calls are held, so that other rules come in the middle of them. Each rule knows what has to come of it.
"""

import argparse
import faulthandler
import inspect
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

import anyio
from crowd import (
    PATIENCE,
    Items,
    Job,
    Oops,
    Opened,
    Stop,
    error_of,
    items,
    opened,
    stubborn,
    tasks,
    var,
    work,
)
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from scripts import collect_dropped, in_loop, quick_loops, threads_since

import anysync
from anysync._process import process

PLACES = ("plain", "also plain", "in a loop", "in a coroutine of ours", "on a runner")
RUNNER_CLOSED = "the runner has been closed"
make_error = st.sampled_from(
    [Oops, Stop, ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError]
)
pick = st.integers(0, 10**6)
turns = st.sampled_from([0, 1, 3])
actors = st.integers(0, len(PLACES) - 1)


class Actor:
    """A thread that does jobs in its place until it is told to end."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.jobs: SimpleQueue[Any] = SimpleQueue()
        self.busy: Future[Any] | None = None
        self.thread = threading.Thread(target=self._live, name=place)
        self.thread.start()

    def _live(self) -> None:
        if self.place in ("plain", "also plain"):
            self._serve()
        elif self.place == "in a loop":
            anyio.run(self._main, backend=process.backend)
        elif self.place == "in a coroutine of ours":
            anysync.run(self._main())
        else:
            with anysync.Runner("an actor's") as runner:
                runner.run(self._main())

    async def _main(self) -> None:
        self._serve()

    def _serve(self) -> None:
        var.set(self)
        while (job := self.jobs.get()) is not None:
            future, function = job
            try:
                value = function()
                assert var.get() is self, "a change of a context variable has come out"
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)
            del job, future, function

    def begin(self, function: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        self.jobs.put((future, function))
        return future

    def do(self, function: Callable[[], Any]) -> Any:
        return self.begin(function).result(PATIENCE)

    def error_of(self, function: Callable[[], Any]) -> BaseException | None:
        return self.begin(function).exception(PATIENCE)

    def end(self) -> None:
        self.jobs.put(None)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


class Open:
    """A generator or manager that has been made, and what is known of it."""

    def __init__(self, thing: Any, job: Job, kind: str, runner: "OneRunner | None" = None) -> None:
        self.thing, self.job, self.kind, self.runner = thing, job, kind, runner
        self.child: Job | None = None
        self.number = 0
        self.state = "fresh"
        self.inside: Actor | None = None


class OneRunner:
    def __init__(self) -> None:
        self.runner = anysync.Runner("the model's")
        self.closed = False


class Held:
    """A call or step that is held: who waits for it, and with what it will end."""

    def __init__(
        self, job: Job, future: "Future[Any]", actor: Actor | None, runner: OneRunner | None = None
    ) -> None:
        self.job, self.future, self.actor, self.runner = job, future, actor, runner
        self.error: BaseException | None = None


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
        in_loop(lambda: anysync.run(anyio.sleep(0), backend=process.backend))
        self.threads = threading.enumerate()
        self.actors = [Actor(place) for place in PLACES]
        self.jobs: list[Job] = []
        self.coros: list[Any] = []
        self.held: list[Held] = []
        self.generators: list[Open] = []
        self.managers: list[Open] = []
        self.runners: list[OneRunner] = []
        self.told: list[tuple[list[object], Future[Any]]] = []

    def job(self) -> Job:
        self.jobs.append(Job())
        return self.jobs[-1]

    def actor(self, number: int) -> Actor:
        """Return the actor with the number, or the next one that is not held."""
        order = self.actors[number:] + self.actors[:number]
        return next(actor for actor in order if actor.busy is None)

    def some_actor_is_free(self) -> bool:
        return any(actor.busy is None for actor in self.actors)

    def runner(self, number: int) -> OneRunner | None:
        """Return an open runner, or none: then the call finds its own place."""
        choice = [None, *(one for one in self.runners if not one.closed)]
        return choice[number % len(choice)]

    # calls

    @precondition(some_actor_is_free)
    @rule(
        actor=actors,
        way=st.sampled_from(["method", "function", "wrapped", "runner"]),
        turns=turns,
        make=st.none() | make_error,
        timeout=st.sampled_from([None, None, PATIENCE]),
        given=st.booleans(),
        number=pick,
    )
    def call(
        self, actor: int, way: str, turns: int, make: Any, timeout: Any, given: bool, number: int
    ) -> None:
        who, job, error = self.actor(actor), self.job(), make and make()
        coro = work(job, turns, error)
        context = copy_context()
        context.run(var.set, context)
        one = self.runner(number)
        run: Any = {
            "method": coro.run,
            "function": partial(anysync.run, coro),
            "wrapped": lambda *args, **options: anysync.wrap_coroutine(coro.coro).run(*args, **options),
            "runner": partial(one.runner.run, coro) if one else coro.run,
        }[way]
        call = partial(run, timeout, context=context if given else None)
        if error is None:
            assert who.do(call) is job
        else:
            assert who.error_of(call) is error
        job.check_over()
        assert job.saw is (context if given else who)
        assert context[var] is context  # `work` puts back what it has changed

    @precondition(some_actor_is_free)
    @rule(actor=actors, swallows=st.booleans(), timeout=st.sampled_from([0, -1, 1e-4]), number=pick)
    def call_with_a_timeout_that_passes(
        self, actor: int, swallows: bool, timeout: float, number: int
    ) -> None:
        who, job, one = self.actor(actor), self.job(), self.runner(number)
        coro = stubborn(job) if swallows else work(job, 1, hold=True)
        call = partial(one.runner.run, coro, timeout) if one else partial(coro.run, timeout)
        if swallows:
            assert who.do(call) is job
        else:
            assert type(who.error_of(call)) is TimeoutError
        job.check_over()

    @precondition(some_actor_is_free)
    @rule(actor=actors, number=pick, make=st.none() | make_error)
    def call_and_be_held(self, actor: int, number: int, make: Any) -> None:
        who, job, one, error = self.actor(actor), self.job(), self.runner(number), make and make()
        coro = work(job, 1, error, hold=True)
        who.busy = who.begin(partial(one.runner.run, coro) if one else coro.run)
        held = Held(job, who.busy, who, one)
        held.error = error
        self.held.append(held)
        assert job.held.wait(PATIENCE)

    @precondition(some_actor_is_free)
    @rule(actor=actors, number=pick, make=st.none() | make_error, early=st.booleans())
    def submit(self, actor: int, number: int, make: Any, early: bool) -> None:
        """Submit what is held, or cancel it before it may have begun."""
        who, job, one, error = self.actor(actor), self.job(), self.runner(number), make and make()
        coro = work(job, 1, error, hold=True)
        self.coros.append(coro)
        future = who.do(partial(one.runner.submit, coro) if one else coro.submit)
        told: list[object] = []
        future.add_done_callback(told.append)
        self.told.append((told, future))
        if early:
            assert future.cancel()
            return
        held = Held(job, future, None, one)
        held.error = error
        self.held.append(held)
        assert job.held.wait(PATIENCE)

    @precondition(lambda self: self.held)
    @rule(number=pick, cancel=st.booleans())
    def release(self, number: int, cancel: bool) -> None:
        """Let a held call or step go on, or cancel a submitted one."""
        held = self.held.pop(number % len(self.held))
        if cancel and held.actor is None:
            assert held.future.cancel()
            assert held.job.over.wait(PATIENCE)
            assert type(error_of(partial(held.future.result, 0))) is CancelledError
        else:
            held.job.release()
            self.outcome(held)
        self.let_go(held)

    def outcome(self, held: Held) -> None:
        if isinstance(held.error, CancelledError) and held.actor is None:
            assert type(error_of(partial(held.future.result, PATIENCE))) is CancelledError
        elif held.error is not None:
            told = held.future.exception(PATIENCE)
            assert told is held.error, repr(told)
        else:
            value = held.future.result(PATIENCE)
            assert value is held.job or value[0] is held.job

    def let_go(self, held: Held) -> None:
        if held.actor is not None:
            held.actor.busy = None
        for one in self.generators:
            if one.inside is not None and one.inside is held.actor:
                one.inside, one.state, one.number = None, "open", one.number + 1
                return
        held.job.check_over()

    # generators and iterators

    @rule(number=pick, turns=turns, held=st.booleans(), kind=st.sampled_from(["generator", "iterator"]))
    def make_generator(self, number: int, turns: int, held: bool, kind: str) -> None:
        job, one = self.job(), self.runner(number)
        if kind == "iterator":
            made: Any = Items(job, 3, turns)
        else:
            made = items.__wrapped__(job, 3, turns, held_at=1 if held else None)
        if one is not None:
            thing: Any = one.runner.iterate(made)
        else:
            thing = (anysync.wrap_async_iterator if kind == "iterator" else anysync.wrap_async_generator)(
                made
            )
        if held and kind == "generator":
            kind = "held generator"
        self.generators.append(Open(thing, job, kind, one))

    def refused(self, one: Open, who: Actor) -> str | None:
        """Return what a step by this actor must be told, if it cannot be made."""
        if one.inside is not None:
            return "already running"
        if one.runner is not None and one.runner.closed:
            return RUNNER_CLOSED
        return None

    @precondition(lambda self: self.generators and self.some_actor_is_free())
    @rule(
        actor=actors, number=pick, how=st.sampled_from(["next", "send", "throw", "throw out", "close", "for"])
    )
    def step(self, actor: int, number: int, how: str) -> None:
        who, one = self.actor(actor), self.generators[number % len(self.generators)]
        if one.kind == "iterator" and how in ("send", "throw", "throw out"):
            how = "next"
        if how == "send" and one.state == "fresh":
            how = "next"
        thing, sent = one.thing, object()
        error: BaseException = Oops() if how == "throw" else Stop()
        call: Callable[[], Any] = {
            "next": partial(next, thing),
            "send": lambda: thing.send(sent),
            "throw": lambda: thing.throw(error),
            "throw out": lambda: thing.throw(error),
            "close": thing.close,
            "for": lambda: list(thing),
        }[how]
        if (message := self.refused(one, who)) is not None:
            told = who.error_of(call)
            assert type(told) is RuntimeError, told
            assert message in str(told), told
            return
        if one.kind == "held generator" and one.state == "open" and one.number == 1:
            if how in ("next", "send", "throw"):
                who.busy = who.begin(call)
                one.inside = who
                self.held.append(Held(one.job, who.busy, who, one.runner))
                assert one.job.held.wait(PATIENCE)
                return
            if how == "for":
                how, call = "close", thing.close
        elif one.kind == "held generator" and how == "for":
            how, call = "close", thing.close
        if how == "close":
            assert who.do(call) is None
            one.state = "ended"
        elif one.state == "ended" and how in ("throw", "throw out"):
            told = who.error_of(call)
            # what `athrow` does to one that has ended depends on Python's version
            assert told is None or told is error or isinstance(told, StopIteration), told
        elif how == "throw out" or (how == "throw" and one.state == "fresh"):
            assert who.error_of(call) is error
            one.state = "ended"
        elif how == "for":
            rest = [] if one.state == "ended" else [(one.job, number) for number in range(one.number, 3)]
            assert who.do(call) == rest
            one.state = "ended"
        elif one.state == "ended" or one.number == 3:
            told = who.error_of(call)
            assert type(told) is StopIteration or isinstance(told.__cause__, StopIteration), told
            one.state = "ended"
        else:
            assert who.do(call) == (one.job, one.number)
            if how != "next":
                assert one.job.sent is (sent if how == "send" else error)
            one.state, one.number = "open", one.number + 1
        if one.state == "ended":
            assert one.job.begun == one.job.ended <= 1

    @precondition(lambda self: any(one.inside is None for one in self.generators))
    @rule(number=pick)
    def drop(self, number: int) -> None:
        choice = [one for one in self.generators if one.inside is None]
        one = choice[number % len(choice)]
        self.generators.remove(one)
        one.thing = None
        if one.kind == "iterator":  # what it wraps is left as it is: somebody else may have it
            one.job.ended = one.job.begun
        elif one.job.begun:
            collect_dropped()
            assert one.job.over.wait(PATIENCE)
        assert one.job.begun == one.job.ended <= 1

    # context managers

    @precondition(some_actor_is_free)
    @rule(actor=actors, number=pick, turns=turns, kind=st.sampled_from(["function", "class", "fails"]))
    def enter(self, actor: int, number: int, turns: int, kind: str) -> None:
        who, job, one = self.actor(actor), self.job(), self.runner(number)
        error, child = ValueError(), self.job() if kind == "function" else None
        made: Any = Opened(job, turns)
        if kind != "class":
            made = opened(job, turns, child, error if kind == "fails" else None)
        manager = one.runner.enter(made) if one else anysync.wrap_async_context_manager(made)
        if kind == "fails":
            told = who.error_of(manager.__enter__)
            assert isinstance(told, ExceptionGroup)
            assert told.exceptions == (error,)
            job.check_over()
            return
        assert who.do(manager.__enter__) is job
        it = Open(manager, job, kind, one)
        it.child, it.state = child, "open"
        self.managers.append(it)

    @precondition(lambda self: self.managers and self.some_actor_is_free())
    @rule(actor=actors, number=pick, make=st.sampled_from([None, Oops, ValueError, Stop]))
    def leave(self, actor: int, number: int, make: Any) -> None:
        who, it = self.actor(actor), self.managers.pop(number % len(self.managers))
        error = make and make()
        call = partial(it.thing.__exit__, make, error, None)
        if it.runner is not None and it.runner.closed:
            told = who.error_of(call)
            assert type(told) is RuntimeError, told
            assert RUNNER_CLOSED in str(told), told
        elif make in (None, Oops):
            assert who.do(call) is (make is Oops)
        elif it.kind == "class":
            assert not who.do(call)
        else:
            told = who.error_of(call)
            assert isinstance(told, BaseExceptionGroup)
            assert told.exceptions == (error,)
        for job in (it.job, it.child):
            if job is not None:
                job.check_over()
        assert type(who.error_of(it.thing.__exit__)) is RuntimeError

    @precondition(lambda self: self.managers and self.some_actor_is_free())
    @rule(actor=actors, number=pick)
    def enter_twice(self, actor: int, number: int) -> None:
        who, it = self.actor(actor), self.managers[number % len(self.managers)]
        assert type(who.error_of(it.thing.__enter__)) is RuntimeError
        assert it.job.begun == 1

    # runners

    @precondition(lambda self: len(self.runners) < 3)
    @rule()
    def make_runner(self) -> None:
        self.runners.append(OneRunner())

    @precondition(lambda self: self.runners and self.some_actor_is_free())
    @rule(actor=actors, number=pick)
    def close_runner(self, actor: int, number: int) -> None:
        who, one = self.actor(actor), self.runners[number % len(self.runners)]
        who.do(one.runner.close)
        one.closed = True
        for held in [held for held in self.held if held.runner is one]:
            self.held.remove(held)
            told = held.future.exception(PATIENCE)
            assert type(told) is RuntimeError, told
            assert RUNNER_CLOSED in str(told), told
            self.let_go(held)
        for thing in self.generators + self.managers:
            if thing.runner is one and thing.kind != "iterator":
                assert thing.job.begun == thing.job.ended <= 1
        unused = self.job()
        assert str(who.error_of(lambda: one.runner.run(work(unused)))) == RUNNER_CLOSED
        assert str(who.error_of(lambda: one.runner.submit(work(unused)))) == RUNNER_CLOSED
        assert not unused.begun

    def teardown(self) -> None:
        """End what is open; then nothing may be left, and everything has ended once."""
        try:
            while self.held:
                self.release(0, False)
            for one in self.runners:
                one.runner.close()
            while self.generators:
                self.drop(0)
            for it in self.managers:
                error_of(it.thing.__exit__)
        finally:
            for actor in self.actors:
                actor.end()
        collect_dropped()
        assert in_loop(lambda: anysync.run(tasks(), backend=process.backend)) == 0
        for job in self.jobs:
            if job.begun > job.ended:  # cancelled on a loop that nobody has waited for
                assert job.over.wait(PATIENCE)
            assert (job.begun, job.ended) in [(0, 0), (1, 1)]
        for coro in self.coros:
            assert inspect.getcoroutinestate(coro.coro) == inspect.CORO_CLOSED
        for told, future in self.told:
            assert told == [future]
        trios = [thread for thread in threading.enumerate() if "Trio thread" in thread.name]
        assert threads_since([*self.threads, *trios]) == []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--random", action="store_true", help="others each time")
    parser.add_argument("--shrink", action="store_true", help="look for a shorter way to a failure")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()
    quick_loops()
    anysync.configure(backend=options.backend)
    profile = settings(
        max_examples=options.examples,
        stateful_step_count=options.steps,
        derandomize=not options.random,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if options.shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Model, settings=profile)


if __name__ == "__main__":
    sys.exit(main())
