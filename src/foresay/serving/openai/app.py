"""OpenAI's interface: routes, limits, errors."""

import asyncio
import secrets
from collections.abc import Callable
from importlib import resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foresay import __version__
from foresay.foundation.errors import ForesayError
from foresay.serving.config import ServeConfig
from foresay.serving.openai.api_errors import (
    STATUSES,
    ApiError,
    dead,
    failed,
    foresay_error,
    http_error,
    stopping,
    validation_error,
)
from foresay.serving.openai.docs_page import docs_page
from foresay.serving.openai.replies import ChatReply, CompletionReply, Reply, Usage
from foresay.serving.openai.request_log import RequestLog
from foresay.serving.openai.schema import ChatRequest, CompletionRequest, ErrorBody, StreamOptions
from foresay.serving.openai.service import Service
from foresay.serving.openai.streams import EventStream, Talk, until_gone
from foresay.serving.openai.tokens import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    detokenize,
    tokenize,
)


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

    def tokenize(self, asked: TokenizeRequest) -> Tokenized:
        """The tokens of a text or a chat, and how many may be asked (as vLLM says it)."""
        self._known(asked.model or self.service.name)
        return tokenize(self.service, asked)

    def detokenize(self, asked: DetokenizeRequest) -> Detokenized:
        """The text of tokens (as vLLM says it)."""
        self._known(asked.model or self.service.name)
        return detokenize(self.service, asked)

    async def version(self) -> dict[str, str]:
        """Which foresay this is."""
        return {"version": __version__}

    async def health(self) -> dict[str, str]:
        """Whether requests are taken."""
        self._check_running()
        return {"status": "ok"}

    async def metrics(self) -> Response:
        """Counters, for Prometheus."""
        return Response(self.service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> HTMLResponse:
        """A chat."""
        return HTMLResponse(resources.files("foresay.serving.openai").joinpath("page.html").read_text(encoding="utf-8"))

    async def docs(self, request: Request) -> HTMLResponse:
        """What may be asked, in words."""
        schema = request.app.openapi()
        return HTMLResponse(docs_page(schema, self.service.name, str(request.base_url)))

    def _check_running(self) -> None:
        """Raise ApiError where no answer would come."""
        if self.stopping:
            raise stopping()
        if not self.service.worker.is_alive():
            raise dead()

    def _card(self) -> dict[str, Any]:
        engine = self.service.engine
        return {
            "id": self.service.name, "object": "model", "created": 0, "owned_by": "foresay",
            "max_model_len": engine.longest, "layouts": self.service.layouts, "reason": self.service.reason,
        }  # fmt: skip

    def _known(self, name: str) -> None:
        if name != self.service.name:
            raise ApiError(
                404, f"there is no model {name!r} here; ask for {self.service.name!r}", "model", "model_not_found"
            )

    async def _answer(self, asked: ChatRequest | CompletionRequest, request: Request, kind: type[Reply]) -> Response:
        self._known(asked.model)
        self._check_running()
        reading = await asyncio.to_thread(self.service.read, asked)
        listener, prompts = self.service.ask(asked, reading), reading.prompts
        talk = Talk(
            listener,
            kind(self.service.name, self.service.tokenizer, asked, prompts),
            Usage(sum(map(len, prompts)), asked.n),
            asyncio.get_running_loop().time() + self.config.timeout_seconds,
        )
        try:
            if not asked.stream:
                return JSONResponse(await until_gone(request, talk.whole()))
            # Until the first step is there, an error still has a status of its own.
            first = await until_gone(request, talk.next())
        except BaseException:
            self.service.worker.cancel(listener)
            raise
        return EventStream(self.service, listener, talk.stream(first, asked.stream_options or StreamOptions()))


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


def build(service: Service, config: ServeConfig, tell: Callable[[str], None] | None = None) -> FastAPI:
    """The application: every reply but pages, counters and streams is JSON, errors in OpenAI's object.

    `tell` hears a line for every request that has ended.
    """
    app = FastAPI(title="foresay", docs_url=None, redoc_url=None)
    api = app.state.api = Api(service, config)
    app.add_middleware(BodyLimit, most=config.body_bytes)
    if config.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=config.allowed_origins, allow_methods=["*"], allow_headers=["*"]
        )
    if tell is not None:
        app.add_middleware(RequestLog, tell=tell)
    errors: dict[int | str, Any] = {status: {"model": ErrorBody} for status in STATUSES}
    guarded: dict[str, Any] = {"dependencies": [Depends(_guard(config))], "responses": errors}
    app.post("/v1/chat/completions", **guarded)(api.chat)
    app.post("/v1/completions", **guarded)(api.completions)
    app.get("/v1/models", **guarded)(api.models)
    app.get("/v1/models/{name:path}", **guarded)(api.model)
    app.post("/tokenize", response_model_exclude_none=True, **guarded)(api.tokenize)
    app.post("/detokenize", **guarded)(api.detokenize)
    app.get("/version")(api.version)
    app.get("/health", responses={503: {"model": ErrorBody}})(api.health)
    app.get("/metrics", include_in_schema=False)(api.metrics)
    app.get("/", include_in_schema=False)(api.page)
    app.get("/docs", include_in_schema=False)(api.docs)
    for path, shown in (("/health", api.health), ("/metrics", api.metrics), ("/", api.page), ("/docs", api.docs)):
        app.head(path, include_in_schema=False)(shown)  # what load balancers ask
    app.head("/v1/models", dependencies=guarded["dependencies"], include_in_schema=False)(api.models)
    app.exception_handler(ApiError)(lambda _, error: error.response())
    app.exception_handler(ForesayError)(foresay_error)
    app.exception_handler(RequestValidationError)(validation_error)
    app.exception_handler(HTTPException)(http_error)
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
