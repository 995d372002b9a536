"""A generator or a `with` is left in another context than it was entered in, and its token is refused."""

import gc
import logging
import threading
from contextvars import ContextVar

import pytest
from worlds import both_worlds

import anysync

span = ContextVar("span", default=None)


class Left:
    """Sets the variable for a while, and notes whether the reset was refused."""

    def __init__(self):
        self.refused = None
        self.ended = threading.Event()

    def __enter__(self):
        self.token = span.set(self)

    def __exit__(self, *error):
        try:
            assert span.get() is self
            span.reset(self.token)
        except BaseException as refused:
            self.refused = refused
        self.ended.set()


def exhaust(generator):
    assert list(generator) == [0, 1, 2]


def leave_early(generator):
    for _ in generator:
        break


def close(generator):
    next(generator)
    generator.close()


def drop_in_another_thread(generator):
    def drop():
        kept.clear()
        gc.collect()

    next(generator)
    kept = [generator]
    del generator
    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()


ends = pytest.mark.parametrize("end", [exhaust, leave_early, close])


@both_worlds
@pytest.mark.parametrize("end", [exhaust, leave_early, close, drop_in_another_thread])
def test_20_failed_to_detach_context(end):
    """open-telemetry/opentelemetry-python#2606, google/adk-python#6559, langfuse/langfuse#13590."""
    left = Left()

    @anysync.generator
    async def answers():
        with left:
            for number in range(3):
                yield number

    items = [answers()]
    end(items.pop())
    gc.collect()
    assert left.ended.wait(30)
    assert left.refused is None
    assert span.get() is None


@both_worlds
@ends
def test_20_failed_to_detach_context_with_opentelemetry(end, caplog):
    """Arize-ai/openinference#1769, traceloop/openllmetry#3061: what the library itself says of it."""
    trace = pytest.importorskip("opentelemetry.trace")
    provider = pytest.importorskip("opentelemetry.sdk.trace").TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("test")
    spans, ended = [], threading.Event()

    @anysync.generator
    async def answers():
        try:
            with tracer.start_as_current_span("answers") as current:
                spans.append(current)
                for number in range(3):
                    assert trace.get_current_span() is current
                    yield number
        finally:
            ended.set()

    with tracer.start_as_current_span("request") as request:
        end(answers())
        gc.collect()
        assert ended.wait(30)
        assert trace.get_current_span() is request
    assert spans[0].parent.span_id == request.get_span_context().span_id
    assert spans[0].end_time is not None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@both_worlds
def test_20_failed_to_detach_context_of_a_with(caplog):
    """google/adk-python#6559: a span from enter to exit."""
    provider = pytest.importorskip("opentelemetry.sdk.trace").TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("test")

    @anysync.contextmanager
    async def traced():
        with tracer.start_as_current_span("session") as current:
            yield current

    with traced() as current:
        assert current.end_time is None
    assert current.end_time is not None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
