"""Errors as OpenAI's interface puts them."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from foresay.decoding.engine import TooLong
from foresay.foundation.errors import BusyError

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


def foresay_error(request: Request, error: Exception) -> JSONResponse:
    """The reply to an error of foresay's own."""
    if isinstance(error, TooLong):
        param = "messages" if request.url.path.endswith("/chat/completions") else "prompt"
        return ApiError(400, str(error), param, "context_length_exceeded").response()
    status = 429 if isinstance(error, BusyError) else 400
    return ApiError(status, str(error), code="queue_full" if status == 429 else None).response()


def http_error(request: Request, error: Exception) -> JSONResponse:
    """The reply to an error of the web framework: no such route, no such method, a body that is no text."""
    assert isinstance(error, HTTPException)
    message = f"{request.url.path}: {error.detail}"
    if error.status_code == 400:
        message = f"the body cannot be read as JSON; {_cure(request, error.__cause__)}"
    response = ApiError(error.status_code, message).response()
    response.headers.update(error.headers or {})
    return response


def _cure(request: Request, cause: BaseException | None) -> str:
    """What to do with a body at which JSON's reader failed with `cause`."""
    packed = request.headers.get("content-encoding", "")
    if packed:
        return f"unpack it (it came as {packed})"
    if isinstance(cause, RecursionError):
        return "it is nested too deep, so send less of that"
    if isinstance(cause, ValueError) and not isinstance(cause, UnicodeError):
        return "a number in it has too many digits, so send a shorter one"
    return "send it as UTF-8"


def _nearest(errors: Sequence[Any]) -> list[Any]:
    """The deepest errors of the first parameter that is wrong; one alone where a value was at least of its kind."""
    own = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    depth = max(len(error["loc"]) for error in own)
    deepest = [error for error in own if len(error["loc"]) == depth]
    return [error for error in deepest if not error["type"].endswith("_type")][:1] or deepest


def _said(errors: Sequence[Any]) -> str:
    """What a value should have been, in the words of JSON."""
    said = [error["msg"].removeprefix("Value error, ").removesuffix(" to extract fields from") for error in errors]
    wanted = list(dict.fromkeys(some.removeprefix("Input should be ") for some in said))
    joined = said[0] if len(wanted) == 1 else f"Input should be {' or '.join(wanted)}"
    return joined.replace("a valid dictionary or object", "an object").replace("a valid dictionary", "an object")


def _no_object(request: Request, empty: bool) -> ApiError:
    """A body that is empty, or was not taken for JSON."""
    if empty:
        return ApiError(400, "the body is empty; send a JSON object")
    kind = request.headers.get("content-type", "")
    if "json" in kind:
        return ApiError(400, 'the body is JSON, but no object; send one, as {"model": ...}')
    came = f"came as {kind}" if kind else "came without a Content-Type"
    return ApiError(400, f"the body {came}; send it with the header Content-Type: application/json")


def validation_error(request: Request, error: Exception) -> JSONResponse:
    """What is wrong, by its name: of the kinds that a value could have been, that of which it came nearest."""
    assert isinstance(error, RequestValidationError)
    nearest = _nearest(error.errors())
    first = nearest[0]
    if first["loc"] == ("body",) and first["type"] in ("missing", "model_attributes_type"):
        return _no_object(request, first["type"] == "missing").response()
    # Between the names stand the kinds that were tried (`constrained-str`, `list[...]`), which no client knows.
    names = [part for part in map(str, first["loc"][1:]) if part != "str" and not {"-", "["} & set(part)]
    place = ".".join(names)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first['ctx']['error']}").response()
    if first["type"] == "extra_forbidden":
        message = f"{place} is not supported here; leave it out"
    else:
        message = f"{place}: {_said(nearest)}" if place else _said(nearest)
    return ApiError(400, message, names[0] if names else None).response()
