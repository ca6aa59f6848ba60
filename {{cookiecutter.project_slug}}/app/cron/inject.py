"""`Depends` in jobs, as in endpoints: FastAPI itself solves the parameters of a job."""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.requests import HTTPConnection
from fastapi.routing import APIWebSocketRoute
from fastapi.security.base import SecurityBase
from starlette.types import Message

from .job import Function, Job, JobContext, JobError, collect

Invoke = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a body that has been given its parameters: awaits it, or calls it in a thread."""


async def _run_of(connection: HTTPConnection) -> dict[str, Any]:
    run: dict[str, Any] = connection.scope["cron"]
    return run


# The parameter by which the endpoint below gets at the run that it serves.
_RUN = inspect.Parameter(
    "cron_run_", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Any, Depends(_run_of)]
)


class Injected:
    """A job whose dependencies FastAPI solves for each run, teardown included.

    The body is the endpoint of a WebSocket route, the one kind that owes nobody a response: it runs
    after the set-up and before the teardown of its dependencies, all on the caller's task. Raises
    JobError when the job or a provider asks for something that only a request has.
    """

    def __init__(self, job: Job, app: FastAPI) -> None:
        self.job = job
        self._app = app
        try:
            signature = inspect.signature(job.function, eval_str=True)
        except Exception as error:  # annotations are code, which can fail in any way
            reason = str(error).partition("\n")[0]
            raise JobError(f"job {job.name!r}: its parameters cannot be read: {reason}") from error
        given = signature.parameters.values()
        for parameter in given:
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                raise JobError(f"job {job.name!r}: {parameter.name!r} must not be positional-only")
        contexts = [p.name for p in given if p.annotation is JobContext]
        solved = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in given if p.name not in contexts
        ]

        async def endpoint(**values: Any) -> None:
            run = values.pop(_RUN.name)
            values.update(dict.fromkeys(contexts, run["context"]))
            run["result"] = await run["invoke"](partial(job.function, **values))

        setattr(endpoint, "__signature__", inspect.Signature([*solved, _RUN]))
        try:
            self._route = APIWebSocketRoute("/", endpoint, dependency_overrides_provider=app)
        except Exception as error:  # of FastAPI or of what the dependencies are
            reason = str(error).partition("\n")[0]
            raise JobError(f"job {job.name!r}: {reason}") from error
        for name in _read_from_request(self._route.dependant):
            raise JobError(f"job {job.name!r}: a job has no request to read {name!r} from")

    async def run(self, context: JobContext, invoke: Invoke) -> Any:
        """Solve the dependencies, run the body by `invoke`, tear down, return what it returned."""
        run: dict[str, Any] = {"context": context, "invoke": invoke}
        scope = {
            "type": "websocket",
            "app": self._app,
            "state": context.state,
            "path": "/",
            "query_string": b"",
            "headers": [],
            "cron": run,
        }
        await self._route.app(scope, _no_message, _send_nothing)
        if "result" not in run:
            raise RuntimeError("the body failed and a dependency swallowed its error")
        return run["result"]


def prepare(functions: Sequence[Function], app: FastAPI) -> list[Injected]:
    """The jobs that the functions declare, ready to run. Raises JobError for one that cannot."""
    return [Injected(job, app) for job in collect(functions)]


def _read_from_request(dependant: Dependant) -> Iterator[str]:
    """The names that the job, or a provider it depends on, would read from a request."""
    for fields in (
        dependant.path_params,
        dependant.query_params,
        dependant.header_params,
        dependant.cookie_params,
        dependant.body_params,
    ):
        yield from (field.alias for field in fields)
    for name in (
        dependant.request_param_name,
        dependant.websocket_param_name,
        dependant.response_param_name,
        dependant.background_tasks_param_name,
    ):
        if name is not None:
            yield name
    for provider in dependant.dependencies:
        if isinstance(provider.call, SecurityBase):
            yield str(provider.name)
        yield from _read_from_request(provider)


async def _no_message() -> Message:
    raise RuntimeError("a job has no request to receive a message from")


async def _send_nothing(message: Message) -> None:
    raise RuntimeError("a job has no request to send a message to")
