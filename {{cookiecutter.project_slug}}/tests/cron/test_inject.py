"""What a job is given: FastAPI solves its parameters, as it does those of an endpoint."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from random import Random
from typing import Annotated, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    Security,
    UploadFile,
    WebSocket,
)
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer
from pydantic import BaseModel
from starlette.datastructures import State

from app.cron import JobContext, every, job
from app.cron.inject import prepare
from app.cron.job import JobError
from support import FakeClock, cron_app, running

Log = pytest.LogCaptureFixture
FIVE_MINUTES = every(minutes=5, jitter=0)

seen = list[Any]()
"""What the jobs and providers of a test have noted, in order."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


async def run_once(app: FastAPI, clock: FakeClock) -> None:
    """Start the app, so that its jobs run for the first time, and end it."""
    async with running(app, clock):
        pass


# Values


def sync_provider() -> str:
    """Called in a thread."""
    return "a value"


async def async_provider() -> str:
    """Awaited on the event loop."""
    return "a value"


def sync_generator() -> Iterator[str]:
    """Both of its parts are called in threads."""
    seen.append("set up")
    try:
        yield "a value"
    except BaseException as error:
        seen.append(type(error))
        raise
    finally:
        seen.append("tear down")


async def async_generator() -> AsyncIterator[str]:
    """Both of its parts are awaited on the event loop."""
    seen.append("set up")
    try:
        yield "a value"
    except BaseException as error:
        seen.append(type(error))
        raise
    finally:
        seen.append("tear down")


class Instance:
    """Called where one of it is the provider."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __call__(self) -> str:
        return self.value


GENERATORS = [sync_generator, async_generator]


@pytest.mark.parametrize(
    "provider",
    [sync_provider, async_provider, *GENERATORS, Instance("a value"), lambda: "a value"],
)
async def test_a_job_gets_what_its_provider_gives(
    clock: FakeClock, provider: Callable[[], Any]
) -> None:
    """Of whatever kind that is."""

    @job(FIVE_MINUTES)
    async def tick(value: Annotated[str, Depends(provider)]) -> None:
        seen.append(value)

    await run_once(cron_app(tick, clock=clock), clock)
    assert "a value" in seen


@pytest.mark.parametrize("provider", [sync_provider, async_provider, *GENERATORS])
async def test_a_def_job_gets_what_its_provider_gives(
    clock: FakeClock, provider: Callable[[], Any]
) -> None:
    """Of whatever kind that is, in its thread."""

    @job(FIVE_MINUTES)
    def tick(value: Annotated[str, Depends(provider)]) -> None:
        seen.append((value, threading.current_thread().name))

    await run_once(cron_app(tick, clock=clock), clock)
    assert ("a value", "cron-job-1") in seen


async def test_a_class_is_a_provider_of_its_instances(clock: FakeClock) -> None:
    """Where the annotation is the class, `Depends()` says enough."""

    class Greeter:
        def __init__(self, greeting: Annotated[str, Depends(sync_provider)]) -> None:
            self.greeting = greeting

    @job(FIVE_MINUTES)
    async def tick(greeter: Annotated[Greeter, Depends()]) -> None:
        seen.append(greeter.greeting)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["a value"]


async def test_depends_can_be_a_default(clock: FakeClock) -> None:
    """As in old endpoints."""

    @job(FIVE_MINUTES)
    async def tick(value: str = Depends(sync_provider)) -> None:
        seen.append(value)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["a value"]


async def test_a_job_gets_its_context(clock: FakeClock) -> None:
    """Under whatever name it asks for it."""

    @job(FIVE_MINUTES)
    async def tick(this_run: JobContext) -> None:
        seen.append(this_run.run_no)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == [1]


async def test_a_def_job_gets_its_context(clock: FakeClock) -> None:
    """As `async def` does."""

    @job(FIVE_MINUTES)
    def tick(this_run: JobContext) -> None:
        seen.append(this_run.run_no)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == [1]


async def test_a_job_may_ask_for_nothing(clock: FakeClock) -> None:
    """It is called without arguments."""

    @job(FIVE_MINUTES)
    async def tick() -> None:
        seen.append("ran")

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["ran"]


async def test_a_job_may_ask_for_the_connection(clock: FakeClock) -> None:
    """The only thing of a request that a job has as well: by it, it gets at the app."""

    @job(FIVE_MINUTES)
    async def tick(connection: HTTPConnection) -> None:
        seen.append(connection.app)

    app = cron_app(tick, clock=clock)
    await run_once(app, clock)
    assert seen == [app]


async def test_annotations_may_be_strings(clock: FakeClock) -> None:
    """As all are under `from __future__ import annotations`."""

    @job(FIVE_MINUTES)
    async def tick(ctx: Any, value: Any) -> None:
        seen.append((ctx.run_no, value))

    tick.__annotations__.update(ctx="JobContext", value="Annotated[str, Depends(sync_provider)]")
    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == [(1, "a value")]


# Nested, cached, overridden


async def test_a_provider_may_have_providers(clock: FakeClock) -> None:
    """It gets their values before it gives its own."""

    async def shout(value: Annotated[str, Depends(sync_provider)]) -> str:
        return value.upper()

    @job(FIVE_MINUTES)
    async def tick(value: Annotated[str, Depends(shout)]) -> None:
        seen.append(value)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["A VALUE"]


async def numbered() -> int:
    """How often it has been called."""
    seen.append("called")
    return seen.count("called")


async def test_in_a_run_a_provider_is_called_once(clock: FakeClock) -> None:
    """However many ask for it, and through whichever providers."""

    async def again(value: Annotated[int, Depends(numbered)]) -> int:
        return value

    @job(FIVE_MINUTES)
    async def tick(
        one: Annotated[int, Depends(numbered)], two: Annotated[int, Depends(again)]
    ) -> None:
        seen.append((one, two))

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["called", (1, 1)]


async def test_each_run_has_its_providers_called_anew(clock: FakeClock) -> None:
    """Nothing is kept from the run before."""

    @job(FIVE_MINUTES)
    async def tick(value: Annotated[int, Depends(numbered)]) -> None:
        seen.append(value)

    async with running(cron_app(tick, clock=clock), clock):
        await clock.advance(minutes=5)
    assert seen == ["called", 1, "called", 2]


async def test_without_the_cache_a_provider_is_called_each_time(clock: FakeClock) -> None:
    """`use_cache=False` says so."""
    Fresh = Annotated[int, Depends(numbered, use_cache=False)]  # noqa: N806 -- it is a type

    @job(FIVE_MINUTES)
    async def tick(one: Fresh, two: Fresh) -> None:
        seen.append((one, two))

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["called", "called", (1, 2)]


@job(FIVE_MINUTES, name="tick")
async def values(
    one: Annotated[str, Depends(sync_provider)], two: Annotated[str, Depends(async_provider)]
) -> None:
    """Notes what it is given."""
    seen.append((one, two))


@pytest.mark.parametrize("override", [lambda: "another", Instance("another")])
async def test_a_provider_can_be_overridden(clock: FakeClock, override: Callable[[], str]) -> None:
    """By `app.dependency_overrides`, as in tests of endpoints; others stay."""
    app = cron_app(values, clock=clock)
    app.dependency_overrides[sync_provider] = override
    await run_once(app, clock)
    assert seen == [("another", "a value")]


async def test_a_nested_provider_can_be_overridden(clock: FakeClock) -> None:
    """Wherever it is asked for."""

    async def shout(value: Annotated[str, Depends(sync_provider)]) -> str:
        return value.upper()

    @job(FIVE_MINUTES)
    async def tick(value: Annotated[str, Depends(shout)]) -> None:
        seen.append(value)

    app = cron_app(tick, clock=clock)
    app.dependency_overrides[sync_provider] = lambda: "another"
    await run_once(app, clock)
    assert seen == ["ANOTHER"]


async def test_an_override_is_honoured_from_the_next_run_on(clock: FakeClock) -> None:
    """It may come, and go, while the app runs."""
    app = cron_app(values, clock=clock)
    async with running(app, clock):
        app.dependency_overrides[sync_provider] = lambda: "another"
        await clock.advance(minutes=5)
        app.dependency_overrides.clear()
        await clock.advance(minutes=5)
    assert [one for one, _ in seen] == ["a value", "another", "a value"]


# What a provider sees


async def test_a_provider_sees_the_app(clock: FakeClock) -> None:
    """By `HTTPConnection`, which serves jobs and endpoints alike."""

    async def provider(connection: HTTPConnection) -> Any:
        return connection.app

    @job(FIVE_MINUTES)
    async def tick(app: Annotated[Any, Depends(provider)]) -> None:
        seen.append(app)

    app = cron_app(tick, clock=clock)
    await run_once(app, clock)
    assert seen == [app]


async def test_a_provider_sees_no_more_of_a_request(clock: FakeClock) -> None:
    """One that looks, as those of endpoints may do, finds it empty."""

    async def provider(connection: HTTPConnection) -> Any:
        return connection.url.path, connection.path_params, connection.query_params.multi_items()

    @job(FIVE_MINUTES)
    async def tick(what: Annotated[Any, Depends(provider)]) -> None:
        seen.append(what)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == [("/", {}, [])]


async def greeting(connection: HTTPConnection) -> str:
    """What the lifespan shares."""
    return str(connection.state.greeting)


async def test_a_provider_sees_what_the_lifespan_shares(clock: FakeClock) -> None:
    """As `connection.state`; the job itself has it as `ctx.state`."""

    @job(FIVE_MINUTES)
    async def tick(ctx: JobContext, value: Annotated[str, Depends(greeting)]) -> None:
        seen.append((value, ctx.state.greeting))

    await run_once(cron_app(tick, clock=clock, state={"greeting": "hello"}), clock)
    assert seen == [("hello", "hello")]


async def test_what_a_provider_puts_into_the_state_is_for_this_run(clock: FakeClock) -> None:
    """The body finds it there, the next run does not."""

    async def provider(connection: HTTPConnection) -> None:
        seen.append(hasattr(connection.state, "count"))
        connection.state.count = 1

    @job(FIVE_MINUTES)
    async def tick(ctx: JobContext, _: Annotated[None, Depends(provider)]) -> None:
        seen.append(ctx.state.count)

    async with running(cron_app(tick, clock=clock), clock):
        await clock.advance(minutes=5)
    assert seen == [False, 1, False, 1]


async def test_providers_and_the_body_are_one_task(clock: FakeClock) -> None:
    """What is bound to a task, such as a cancel or a timeout, is bound to all of the run."""

    async def provider() -> AsyncIterator[None]:
        seen.append(asyncio.current_task())
        yield
        seen.append(asyncio.current_task())

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(provider)]) -> None:
        seen.append(asyncio.current_task())

    await run_once(cron_app(tick, clock=clock), clock)
    assert len(seen) == 3
    assert len(set(seen)) == 1


async def test_a_body_in_a_thread_has_the_context_of_its_providers(clock: FakeClock) -> None:
    """A context variable that one has set, as for tracing, is set there."""
    variable = ContextVar("variable", default="unset")

    async def provider() -> None:
        variable.set("set")

    @job(FIVE_MINUTES)
    def tick(_: Annotated[None, Depends(provider)]) -> None:
        seen.append(variable.get())

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["set"]


# Teardown


@pytest.mark.parametrize("provider", GENERATORS)
async def test_a_provider_is_torn_down_after_the_body(
    clock: FakeClock, provider: Callable[[], Any]
) -> None:
    """What it gave is whole for as long as the body needs it."""

    @job(FIVE_MINUTES)
    async def tick(ctx: JobContext, _: Annotated[str, Depends(provider)]) -> None:
        await ctx.clock.sleep(10)
        seen.append("body")

    async with running(cron_app(tick, clock=clock), clock):
        await clock.advance(seconds=10)
        assert seen == ["set up", "body", "tear down"]


@pytest.mark.parametrize("provider", GENERATORS)
async def test_a_provider_is_torn_down_after_a_body_in_a_thread(
    clock: FakeClock, provider: Callable[[], Any]
) -> None:
    """Not while the thread still works."""
    gate = clock.gate()

    @job(FIVE_MINUTES)
    def tick(_: Annotated[str, Depends(provider)]) -> None:
        gate.wait()
        seen.append("body")

    async with running(cron_app(tick, clock=clock), clock):
        assert seen == ["set up"]
        gate.open()
        await clock.settle()
        assert seen == ["set up", "body", "tear down"]


@pytest.mark.parametrize("provider", GENERATORS)
async def test_a_provider_sees_the_error_of_the_body(
    clock: FakeClock, provider: Callable[[], Any]
) -> None:
    """So that it can roll back."""

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[str, Depends(provider)]) -> None:
        raise ValueError("of the body")

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["set up", ValueError, "tear down"]


@pytest.mark.parametrize("provider", GENERATORS)
async def test_a_provider_sees_that_the_body_is_cancelled(
    clock: FakeClock, provider: Callable[[], Any]
) -> None:
    """By a shutdown, or by its timeout."""

    @job(FIVE_MINUTES)
    async def tick(ctx: JobContext, _: Annotated[str, Depends(provider)]) -> None:
        await ctx.clock.sleep(60)

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["set up", asyncio.CancelledError, "tear down"]


async def test_providers_are_torn_down_in_reverse(clock: FakeClock) -> None:
    """What another one needs outlives it."""

    async def inner() -> AsyncIterator[None]:
        seen.append("inner")
        yield
        seen.append("inner again")

    def outer(_: Annotated[None, Depends(inner)]) -> Iterator[None]:
        seen.append("outer")
        yield
        seen.append("outer again")

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(outer)]) -> None:
        seen.append("body")

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["inner", "outer", "body", "outer again", "inner again"]


async def test_a_teardown_may_take_its_time(clock: FakeClock) -> None:
    """The run ends with it: at a shutdown it is awaited, as the body is."""

    async def slow(connection: HTTPConnection) -> AsyncIterator[None]:
        yield
        await clock.sleep(2)
        seen.append(clock.monotonic())

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(slow)]) -> None: ...

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == [2]


# Errors


async def test_a_provider_that_fails_makes_the_run_an_error(clock: FakeClock, caplog: Log) -> None:
    """The body is not begun; what it raises means nothing else, not even to HTTP."""

    async def provider() -> None:
        raise HTTPException(404, "no such thing")

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(provider)]) -> None:
        seen.append("body")

    await run_once(cron_app(tick, clock=clock), clock)
    assert "tick run 1: error: 404: no such thing" in caplog.messages
    assert seen == []


async def test_a_provider_that_fails_leaves_none_set_up(clock: FakeClock) -> None:
    """Those before it are torn down."""

    async def provider(_: Annotated[str, Depends(async_generator)]) -> None:
        raise ValueError

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(provider)]) -> None: ...

    await run_once(cron_app(tick, clock=clock), clock)
    assert seen == ["set up", ValueError, "tear down"]


async def test_a_teardown_that_fails_makes_the_run_an_error(clock: FakeClock, caplog: Log) -> None:
    """Though the body has done well: what it did may not be committed."""

    async def provider() -> AsyncIterator[None]:
        yield
        raise ValueError("of the teardown")

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(provider)]) -> None: ...

    await run_once(cron_app(tick, clock=clock), clock)
    assert "tick run 1: error: of the teardown" in caplog.messages


def swallow() -> Iterator[None]:
    """Hides what the body raises, in threads."""
    try:
        yield
    except ValueError:
        seen.append("swallowed")


async def swallow_async() -> AsyncIterator[None]:
    """Hides what the body raises, on the event loop."""
    try:
        yield
    except ValueError:
        seen.append("swallowed")


@pytest.mark.parametrize("provider", [swallow, swallow_async])
async def test_an_error_that_a_provider_swallows_is_an_error(
    clock: FakeClock, caplog: Log, provider: Callable[[], Any]
) -> None:
    """A run whose body has failed is never taken for a good one."""

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(provider)]) -> None:
        raise ValueError

    await run_once(cron_app(tick, clock=clock), clock)
    message = "tick run 1: error: the body failed and a dependency swallowed its error"
    assert message in caplog.messages
    assert seen == ["swallowed"]


async def test_an_override_that_needs_a_request_makes_the_run_an_error(
    clock: FakeClock, caplog: Log
) -> None:
    """It cannot be refused at start: it comes later."""

    def needs_a_query(q: int) -> str:
        return f"{q}"

    app = cron_app(values, clock=clock)
    app.dependency_overrides[sync_provider] = needs_a_query
    await run_once(app, clock)
    assert "tick run 1: error: " in caplog.text
    assert seen == []


@pytest.mark.parametrize(
    ("talk", "what"),
    [
        (lambda connection: connection.accept(), "receive a message from"),
        (lambda connection: connection.close(), "send a message to"),
    ],
)
async def test_there_is_nobody_to_talk_to(
    clock: FakeClock, caplog: Log, talk: Callable[[Any], Any], what: str
) -> None:
    """A provider that tries makes the run an error, and does not wait for ever."""

    async def provider(connection: HTTPConnection) -> None:
        await talk(connection)

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[None, Depends(provider)]) -> None: ...

    await run_once(cron_app(tick, clock=clock), clock)
    assert f"tick run 1: error: a job has no request to {what}" in caplog.messages


# What it returns


@pytest.mark.parametrize("result", [None, 0, "a note", object()])
async def test_the_result_is_what_the_body_returned(clock: FakeClock, result: Any) -> None:
    """The very object, also if it is None."""

    @job(FIVE_MINUTES)
    async def tick(_: Annotated[str, Depends(async_generator)]) -> Any:
        return result

    async def invoke(body: Callable[[], Any]) -> Any:
        return await body()

    [injected] = prepare([tick], FastAPI())
    context = JobContext(name="tick", clock=clock, random=Random(5), run_no=1, state=State())
    assert await injected.run(context, invoke) is result


# What is refused at start


class Body(BaseModel):
    """What a request could bring."""


class Unknown:
    """Neither given by a provider nor read from a request."""


def asking_for(annotation: Any) -> Callable[..., Any]:
    """A job `x` whose one parameter, `q`, is so annotated."""

    async def body(q: Any) -> None:
        """It never runs."""

    body.__annotations__["q"] = annotation
    return job(FIVE_MINUTES, name="x")(body)


def refusal(function: Callable[..., Any]) -> str:
    """What is said of a job that cannot be given what it asks for. It is one line."""
    with pytest.raises(JobError) as error:
        prepare([function], FastAPI())
    assert "\n" not in str(error.value)
    return str(error.value)


REQUESTED = [
    int,
    str | None,
    list[int],
    Body,
    Annotated[int, Query()],
    Annotated[int, Path()],
    Annotated[str, Header()],
    Annotated[str, Cookie()],
    Request,
    WebSocket,
    Response,
    BackgroundTasks,
    "int",
    "Annotated[int, Query()]",
]


@pytest.mark.parametrize("annotation", REQUESTED)
def test_what_only_a_request_has_is_refused(annotation: Any) -> None:
    """The message names the job and the parameter."""
    message = "job 'x': a job has no request to read 'q' from"
    assert refusal(asking_for(annotation)) == message


@pytest.mark.parametrize("annotation", REQUESTED)
def test_what_only_a_request_has_is_refused_in_providers(annotation: Any) -> None:
    """However deep they are nested."""

    def inner(q: Any) -> None:
        """It never runs."""

    async def outer(value: Annotated[None, Depends(inner)]) -> None:
        """It never runs."""

    inner.__annotations__["q"] = annotation
    message = "job 'x': a job has no request to read 'q' from"
    assert refusal(asking_for(Annotated[None, Depends(outer)])) == message


def test_a_header_is_refused_by_its_own_name() -> None:
    """As the request would spell it."""

    @job(FIVE_MINUTES, name="x")
    async def body(x_token: Annotated[str, Header()]) -> None: ...

    assert refusal(body) == "job 'x': a job has no request to read 'x-token' from"


@pytest.mark.parametrize(
    "scheme",
    [
        Depends(HTTPBearer()),
        Security(APIKeyHeader(name="key")),
        Depends(OAuth2PasswordBearer(tokenUrl="token")),
    ],
)
def test_a_security_scheme_is_refused(scheme: Any) -> None:
    """It would look for credentials in every run, and find none."""
    message = "job 'x': a job has no request to read 'q' from"
    assert refusal(asking_for(Annotated[Any, scheme])) == message


@pytest.mark.parametrize("annotation", [Annotated[str, Form()], UploadFile])
def test_a_form_is_refused(annotation: Any) -> None:
    """Whatever is installed to read one."""
    assert refusal(asking_for(annotation)).startswith("job 'x': ")


def test_a_parameter_without_annotation_is_refused() -> None:
    """FastAPI would look for it in the address."""
    body = asking_for(None)
    del body.__annotations__["q"]
    assert refusal(body) == "job 'x': a job has no request to read 'q' from"


def test_a_parameter_with_a_default_is_refused() -> None:
    """It would only ever be that: a setting belongs into the settings."""

    @job(FIVE_MINUTES, name="x")
    async def body(q: int = 5) -> None:
        """It never runs."""

    assert refusal(body) == "job 'x': a job has no request to read 'q' from"


def test_any_number_of_parameters_are_refused() -> None:
    """Nobody could say what they would be."""

    @job(FIVE_MINUTES, name="x")
    async def body(*args: int) -> None:
        """It never runs."""

    assert refusal(body) == "job 'x': a job has no request to read 'args' from"


def test_any_named_parameters_are_refused() -> None:
    """Nobody could say what they would be."""

    @job(FIVE_MINUTES, name="x")
    async def body(**options: int) -> None:
        """It never runs."""

    assert refusal(body) == "job 'x': a job has no request to read 'options' from"


def test_a_parameter_that_has_no_name_is_refused() -> None:
    """A job is given what it asks for by name."""

    @job(FIVE_MINUTES, name="x")
    async def body(ctx: JobContext, /) -> None:
        """It never runs."""

    assert refusal(body) == "job 'x': 'ctx' must not be positional-only"


def test_a_provider_that_cannot_be_called_is_refused() -> None:
    """The message names the job, and says what is not right."""
    nonsense: Any = 5
    assert refusal(asking_for(Annotated[int, Depends(nonsense)])).startswith("job 'x': 5 is not a")


def test_a_type_that_nobody_provides_is_refused() -> None:
    """The message names the job and the type."""
    message = refusal(asking_for(Unknown))
    assert message.startswith("job 'x': ")
    assert repr(Unknown) in message


def test_an_annotation_that_fastapi_refuses_is_refused() -> None:
    """The message names the job, and says what FastAPI says."""
    message = refusal(asking_for(Annotated[int, Query(default=5)]))
    assert message.startswith("job 'x': `Query` default value cannot be set in `Annotated`")


def test_an_annotation_that_means_nothing_is_refused() -> None:
    """The message names the job and what is not known."""
    message = "job 'x': its parameters cannot be read: name 'Nothing' is not defined"
    assert refusal(asking_for("Nothing")) == message


@pytest.mark.parametrize("annotation", ["asyncio.Nothing", "not an annotation"])
def test_an_annotation_that_cannot_be_read_is_refused(annotation: str) -> None:
    """The message names the job."""
    assert refusal(asking_for(annotation)).startswith("job 'x': its parameters cannot be read: ")


def test_of_what_is_wrong_with_an_annotation_one_line_is_told() -> None:
    """As of all that is refused."""
    annotation = r"(_ for _ in ()).throw(ValueError('the reason\nand more'))"
    message = "job 'x': its parameters cannot be read: the reason"
    assert refusal(asking_for(annotation)) == message


async def test_an_app_with_such_a_job_does_not_start(clock: FakeClock) -> None:
    """No job of it runs."""

    @job(FIVE_MINUTES)
    async def fine() -> None:
        seen.append("ran")

    with pytest.raises(JobError, match=r"^job 'x': a job has no request to read 'q' from$"):
        await run_once(cron_app(fine, asking_for(int), clock=clock), clock)
    assert seen == []


def test_a_positional_only_parameter_is_refused() -> None:
    """Dependencies are given by name."""

    @job(FIVE_MINUTES)
    async def tick(ctx: JobContext, /) -> None:
        """Cannot be called by name."""

    with pytest.raises(JobError, match=r"^job 'tick': 'ctx' must not be positional-only$"):
        prepare([tick], FastAPI())
