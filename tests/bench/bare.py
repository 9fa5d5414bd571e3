"""The framework alone, as the ceiling of `make bench-gateway`: the gateway's own server with its options, limits and route, behind which nothing is done.

What it leaves out is what the gateway adds: keys, checks of the body, the group commit.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from unittest.mock import patch

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from include.gateway import server
from include.gateway.__main__ import main


async def _answer(request: Request) -> JSONResponse:
    """Reads the body and answers as a post is answered."""
    await request.body()
    return JSONResponse({"receipt": "", "rows": 0, "status": ""}, status_code=202, headers={"Location": "/v1/receipts/"})


@asynccontextmanager
async def _nothing(app: FastAPI):
    yield


def bare_app(parts: object) -> FastAPI:
    """An application with the gateway's route for posts and no work behind it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_nothing)
    app.router.routes.append(Route("/v1/streams/{stream}/events", _answer, methods=["POST"]))
    return app


if __name__ == "__main__":
    with patch.object(server, "make_app", bare_app):
        sys.exit(main())
