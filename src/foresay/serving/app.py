"""OpenAI's interface: routes, limits, errors."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foresay.config import ServeConfig
from foresay.decoding.engine import TooLong
from foresay.errors import BusyError, ForesayError
from foresay.serving.replies import ChatReply, Choice, CompletionReply, Reply, Usage
from foresay.serving.schema import ChatRequest, CompletionRequest, ErrorBody, StreamOptions
from foresay.serving.service import Service
from foresay.serving.worker import Event, Listener

T = TypeVar("T")
GONE = 499
"""Nobody reads this status: the client went away."""
STATUSES = (400, 401, 404, 408, 413, 429, 503)
RETRY_SECONDS = 1


class ApiError(Exception):
    """A request that is refused: status and message."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def json(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        # What was sent may hold half a character, which no answer could carry.
        message = str(self).encode(errors="replace").decode()
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The reply that says so."""
        headers = {"Retry-After": str(RETRY_SECONDS)} if self.status in (429, 503) else {}
        if self.status == 408:
            # OpenAI's client would ask for the same again, and wait as long.
            headers["x-should-retry"] = "false"
        return JSONResponse(self.json(), self.status, headers)


# Made anew each time: an exception that is shared keeps the frames, and so the request, of every raise.
def timed_out() -> ApiError:
    """The time of an answer is over."""
    return ApiError(408, "the answer took longer than this server allows; ask for fewer tokens", code="timeout")


def stopping() -> ApiError:
    """No answer is written any more."""
    return ApiError(503, "the server is being stopped; ask again later", code="stopping")


def failed() -> ApiError:
    """A step failed."""
    return ApiError(500, "a step failed; the server's log says why", code="internal_error")


def dead() -> ApiError:
    """The thread that answers is gone."""
    return ApiError(503, "the thread that answers has ended; the server must be restarted", code="internal_error")


class EventStream(StreamingResponse):
    """Server-sent events of one request, whose answers end when nobody reads on."""

    def __init__(self, service: Service, listener: Listener, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._service, self._listener = service, listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._service.worker.cancel(self._listener)


class Api:
    """The routes of one service."""

    def __init__(self, service: Service, config: ServeConfig) -> None:
        self.service, self.config = service, config
        self.stopping = False

    async def chat(self, asked: ChatRequest, request: Request) -> Response:
        """Answer a chat, whole or as a stream with one chunk a step."""
        return await self._answer(asked, request, ChatReply)

    async def completions(self, asked: CompletionRequest, request: Request) -> Response:
        """Go on with a text, whole or as a stream with one chunk a step."""
        return await self._answer(asked, request, CompletionReply)

    async def models(self) -> dict[str, Any]:
        """The one model there is."""
        return {"object": "list", "data": [self._card()]}

    async def model(self, name: str) -> dict[str, Any]:
        """What is known of the model."""
        self._known(name)
        return self._card()

    async def health(self) -> dict[str, str]:
        """Whether requests are taken."""
        self._check_running()
        return {"status": "ok"}

    async def metrics(self) -> Response:
        """Counters, for Prometheus."""
        return Response(self.service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> HTMLResponse:
        """A chat."""
        return HTMLResponse(resources.files("foresay.serving").joinpath("page.html").read_text(encoding="utf-8"))

    def _check_running(self) -> None:
        """Raise ApiError where no answer would come."""
        if self.stopping:
            raise stopping()
        if not self.service.worker.is_alive():
            raise dead()

    def _card(self) -> dict[str, Any]:
        longest = self.service.engine.longest
        return {
            "id": self.service.name, "object": "model", "created": 0, "owned_by": "foresay", "max_model_len": longest
        }  # fmt: skip

    def _known(self, name: str) -> None:
        if name != self.service.name:
            raise ApiError(
                404, f"there is no model {name!r} here; ask for {self.service.name!r}", "model", "model_not_found"
            )

    async def _answer(self, asked: ChatRequest | CompletionRequest, request: Request, kind: type[Reply]) -> Response:
        self._known(asked.model)
        self._check_running()
        prompts = await asyncio.to_thread(self.service.prompts, asked)
        listener = self.service.ask(asked, prompts)
        talk = Talk(
            listener,
            kind(self.service.name, self.service.tokenizer, asked),
            Usage(sum(map(len, prompts))),
            asyncio.get_running_loop().time() + self.config.timeout_seconds,
        )
        try:
            if not asked.stream:
                return JSONResponse(await _until_gone(request, talk.whole()))
            # Until the first step is there, an error still has a status of its own.
            first = await _until_gone(request, talk.next())
        except BaseException:
            self.service.worker.cancel(listener)
            raise
        return EventStream(self.service, listener, talk.stream(first, asked.stream_options or StreamOptions()))


@dataclass(slots=True)
class Talk:
    """One request that is being answered."""

    listener: Listener
    reply: Reply
    usage: Usage
    deadline: float
    """By the event loop's clock."""

    async def next(self) -> Event:
        """The next event. Raises ApiError in place of an answer that ended before its time."""
        try:
            async with asyncio.timeout_at(self.deadline):
                event = await self.listener.next()
        except TimeoutError:
            raise timed_out() from None
        if event.ended in ("abort", "error"):
            raise stopping() if event.ended == "abort" else failed()
        self.usage.add(event)
        return event

    async def whole(self) -> dict[str, Any]:
        """The reply in one piece."""
        choices = [Choice() for _ in self.listener.answers]
        while any(choice.ended is None for choice in choices):
            event = await self.next()
            choices[event.choice].add(event)
        return self.reply.whole(choices, self.usage)

    async def stream(self, event: Event, options: StreamOptions) -> AsyncIterator[str]:
        """Server-sent events, from the first event on."""
        shown, going = [-1] * len(self.listener.answers), len(self.listener.answers)
        counted = self.usage if options.continuous_usage_stats else None
        while True:
            yield _sse(self.reply.chunk(event, counted, shown[event.choice]))
            shown[event.choice] = max(shown[event.choice], 0) + len(event.text)
            going -= event.ended is not None
            if not going:
                break
            try:
                event = await self.next()
            except ApiError as error:
                yield _sse(error.json())
                return
        if options.include_usage:
            yield _sse(self.reply.last(self.usage))
        yield "data: [DONE]\n\n"


class BodyLimit:
    """Refuses bodies that are too long, before they are read whole."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise HTTPException(413, f"the body is longer than {self._most} bytes; shorten the prompt")
            return message

        await self._app(scope, counted, send)


def build(service: Service, config: ServeConfig) -> FastAPI:
    """The application: every reply but the page, the counters and streams is JSON, errors in OpenAI's object."""
    app = FastAPI(title="foresay", docs_url=None, redoc_url=None)
    api = app.state.api = Api(service, config)
    app.add_middleware(BodyLimit, most=config.body_bytes)
    errors: dict[int | str, Any] = {status: {"model": ErrorBody} for status in STATUSES}
    guarded: dict[str, Any] = {"dependencies": [Depends(_guard(config))], "responses": errors}
    app.post("/v1/chat/completions", **guarded)(api.chat)
    app.post("/v1/completions", **guarded)(api.completions)
    app.get("/v1/models", **guarded)(api.models)
    app.get("/v1/models/{name:path}", **guarded)(api.model)
    app.get("/health", responses={503: {"model": ErrorBody}})(api.health)
    app.get("/metrics", include_in_schema=False)(api.metrics)
    app.get("/", include_in_schema=False)(api.page)
    app.exception_handler(ApiError)(lambda _, error: error.response())
    app.exception_handler(ForesayError)(_foresay_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(lambda _, error: failed().response())
    return app


def _guard(config: ServeConfig) -> Any:
    """A dependency that refuses requests without the key, where there is one."""
    key = config.key
    bearer = HTTPBearer(auto_error=False)

    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        token = given.credentials if given else ""
        if key and not secrets.compare_digest(token.encode(errors="replace"), key.encode()):
            raise ApiError(
                401, "this server wants its key; send it as Authorization: Bearer KEY", code="invalid_api_key"
            )

    return check


async def _until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ApiError when the client goes away first."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    wanted, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((wanted, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise ApiError(GONE, "the client went away")
        return wanted.result()
    finally:
        wanted.cancel()
        leaving.cancel()


def _sse(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _foresay_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, TooLong):
        param = "messages" if request.url.path.endswith("/chat/completions") else "prompt"
        return ApiError(400, str(error), param, "context_length_exceeded").response()
    status = 429 if isinstance(error, BusyError) else 400
    return ApiError(status, str(error), code="queue_full" if status == 429 else None).response()


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = ApiError(error.status_code, f"{request.url.path}: {error.detail}").response()
    response.headers.update(error.headers or {})
    return response


def _nearest(errors: Sequence[Any]) -> Any:
    """The deepest error of the first parameter that is wrong."""
    own = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    return max(own, key=lambda error: len(error["loc"]))


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    """What is wrong, by its name: of the kinds that a value could have been, that of which it came nearest."""
    assert isinstance(error, RequestValidationError)
    first = _nearest(error.errors())
    # Between the names stand the kinds that were tried (`constrained-str`, `list[...]`), which no client knows.
    names = [part for part in map(str, first["loc"][1:]) if part != "str" and not {"-", "["} & set(part)]
    place = ".".join(names)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['ctx']['error']}").response()
    if first["type"] == "extra_forbidden":
        message = f"{place} is not supported here; leave it out"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = f"{place}: {message}" if place else message
    return ApiError(400, message, names[0] if names else None).response()
