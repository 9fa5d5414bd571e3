"""Errors as the gateway answers them: RFC 9457, `application/problem+json`. They say what, where and what to do, and nothing of the inside."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """Something to answer instead of what was asked for.

    Args:
        status: HTTP status.
        detail: What was wrong, where, and what to do.
        headers: Further headers, e.g. `Retry-After` in seconds.
        extensions: Further members of the answer, e.g. `errors`.
    """

    def __init__(self, status: HTTPStatus, detail: str, *, headers: dict[str, str] | None = None, **extensions: Any) -> None:  # noqa: ANN401 - JSON
        self.status, self.detail, self.headers, self.extensions = status, detail, headers or {}, extensions
        super().__init__(detail)

    def response(self) -> JSONResponse:
        """The answer."""
        content = {"type": "about:blank", "title": self.status.phrase, "status": int(self.status), "detail": self.detail, **self.extensions}
        return JSONResponse(content, status_code=int(self.status), headers=self.headers, media_type=MEDIA_TYPE)


async def answer_problem(request: Request, problem: Exception) -> JSONResponse:  # noqa: ARG001 - Starlette gives both to a handler
    """Handler of `Problem`."""
    if not isinstance(problem, Problem):
        raise problem
    return problem.response()
