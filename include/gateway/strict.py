"""`?validate=strict`: every row of a body is judged before anything of it is stored, by the code that lands rows."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from include.contracts import load_contract
from include.gateway.model import Body, Caller
from include.gateway.problems import Problem
from include.landing.row_errors import BadRow, row_errors

MAX_ROWS = 50_000  # about a second of work, whatever the rows are
MAX_ERROR_ROWS = 100


async def refuse_bad_rows(caller: Caller, stream: str, body: Body) -> None:
    """Refuses a body of which landing would quarantine a row. In a thread; whoever calls bounds how many at a time.

    Raises:
        Problem: 422 with the errors of the first `MAX_ERROR_ROWS` rows and the number of all of them; 413 where there are more rows than can be judged at once.
    """
    if body.rows > MAX_ROWS:
        detail = f"validate=strict judges at most {MAX_ROWS:,} rows at a time, and the body has {body.rows:,}: send them in several posts, or without it"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, limit_rows=MAX_ROWS)
    bad = await asyncio.to_thread(row_errors, load_contract(stream), body.plain, body.content_type, caller.tenant_id, body.received_at)
    if not bad:
        return
    more = f"; the first {MAX_ERROR_ROWS} are listed" if len(bad) > MAX_ERROR_ROWS else ""
    detail = f"{len(bad):,} of {body.rows:,} rows break the contract of {stream}, so nothing was stored: mend them, or post without validate=strict{more}"
    raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, rows=body.rows, refused_rows=len(bad), refused=[_told(row) for row in bad[:MAX_ERROR_ROWS]])


def _told(bad: BadRow) -> dict[str, Any]:
    return {"row": bad.row, "errors": [error.as_dict() for error in bad.errors]}
