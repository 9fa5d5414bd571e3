"""`tidemark post`: a file through the gateway, with its receipts and what became of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.commands.console import console, errors, print_json, table
from include.commands.stack import Json
from include.stack.errors import StackError

if TYPE_CHECKING:
    from include.gateway.client import GatewayClient
    from include.gateway.sending import NotTaken, Taken

SHOWN_ROWS = 20
WAIT_S = 1_800.0
POLL_S = 2.0
COUNTS = ("landed", "accepted", "quarantined", "duplicate", "corrected")


def post(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="NDJSON or JSON, plain, .gz or .zst.")],
    stream: Annotated[str, typer.Option("--stream", help="Stream of its rows.")],
    url: Annotated[str | None, typer.Option("--url", help="Address of the gateway; that of this stack where nothing is said.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", envvar="TIDEMARK_API_KEY", help="API key, better in the variable; that of this machine for its own gateway.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Most rows of one post; a post also ends at 1 MiB.")] = 5_000,
    validate: Annotated[str | None, typer.Option("--validate", help="`strict`: take a post only if every row of it is valid.")] = None,
    compress: Annotated[bool, typer.Option("--gzip", help="Send posts compressed, for slow lines.")] = False,
    ca: Annotated[
        Path | None, typer.Option("--ca", exists=True, dir_okay=False, help="PEM file of the authority that signed the gateway's certificate.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--cert", exists=True, dir_okay=False, help="PEM file of this sender's certificate, where the gateway asks for one.")
    ] = None,
    certificate_key: Annotated[Path | None, typer.Option("--cert-key", exists=True, dir_okay=False, help="PEM file of its private key.")] = None,
    patience: Annotated[float, typer.Option("--patience", min=0, help="How long one post is tried, seconds.")] = 120.0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every post has landed, and say what became of its rows.")] = False,
    as_json: Json = False,
) -> None:
    """Post a file to the gateway. Rows with a receipt are safe; exit code 1 where rows were not taken, or had not landed after --wait.

    Safe to repeat: an event that is there already counts once.

    Examples: tidemark post readings.ndjson --stream device_telemetry; tidemark post orders.json --stream orders --validate strict --wait
    """
    from include.gateway.sending import Taken, send_file
    from include.gateway.session import open_client

    if validate not in (None, "strict"):
        raise StackError(f"there is no --validate {validate}", "say --validate strict, or leave it out")
    if (certificate is None) != (certificate_key is None):
        raise StackError("a certificate and its private key belong together", "name both --cert and --cert-key")
    pair = (certificate, certificate_key) if certificate and certificate_key else None
    sent: list[Taken] = []
    missed: list[NotTaken] = []
    with open_client(url, key, ca=ca, certificate=pair, patience_s=patience, on_retry=_tell_retry) as client:
        for outcome in send_file(client, stream, file, rows=rows, is_strict=validate == "strict", compress=compress):
            if isinstance(outcome, Taken):
                sent.append(outcome)
                if not as_json:
                    console.print(f"{_rows(outcome.numbers[0], outcome.numbers[-1])}: {outcome.receipt}", soft_wrap=True)
            else:
                missed.append(outcome)
                if not as_json:
                    _show_missed(outcome)
        became = _wait_for(client, sent) if wait else {}
    if as_json:
        print_json(_document(stream, sent, missed, became))
    else:
        console.print(f"{sum(len(each.numbers) for each in sent):,} rows are safe, posts: {len(sent):,}")
        if wait and sent:
            _show_outcome(sent, became)
    is_done = not missed and all(became.get(each.receipt, {}).get("status") == "landed" for each in sent if wait)
    raise typer.Exit(0 if is_done else 1)


def _tell_retry(reason: str, pause_s: float) -> None:
    errors.print(f"[dim]{reason}; again in {pause_s:.1f} s[/dim]", soft_wrap=True)


def _rows(first: int, last: int | None) -> str:
    return f"row {first}" if first == last else f"rows {first} to {last}" if last is not None else f"rows from {first} on"


def _show_missed(missed: NotTaken) -> None:
    hint = f" — {missed.hint}" if missed.hint else ""
    errors.print(f"{_rows(missed.first, missed.last)} not taken: {missed.reason}{hint}", markup=False, soft_wrap=True, style="red")
    _show_refused(missed.refused)


def _show_refused(refused: Sequence[Mapping[str, Any]]) -> None:
    for row in refused[:SHOWN_ROWS]:
        said = "; ".join(" ".join(filter(None, (error["code"], error["field"], error["message"]))) for error in row["errors"])
        errors.print(f"  row {row['row']}: {said}", markup=False, soft_wrap=True)
    if len(refused) > SHOWN_ROWS:
        errors.print(f"  … and {len(refused) - SHOWN_ROWS} more; --json has all of them")


def _wait_for(client: GatewayClient, sent: Sequence[Taken]) -> dict[str, dict[str, Any]]:
    """What became of posts, by receipt, row numbers being those in the file; posts that are still waiting after half an hour are missing.

    Posts land about in their order, so one is asked for at a time. Where nobody answers the rest is missing: what is safe is to be told all the same.
    """
    from include.gateway.client import ClientError
    from include.gateway.sending import in_file

    became: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + WAIT_S
    try:
        with errors.status("waiting until everything has landed …"):
            for each in sent:
                while (answer := client.receipt(each.receipt))["status"] == "received" and time.monotonic() < deadline:
                    time.sleep(POLL_S)
                if answer["status"] != "received":
                    became[each.receipt] = {**answer, "refused": [in_file(row, each.numbers) for row in answer["refused"]]}
    except ClientError as error:
        errors.print(f"what became of the posts cannot be asked: {error}", markup=False, soft_wrap=True, style="red")
    return became


def _document(stream: str, sent: Sequence[Taken], missed: Sequence[NotTaken], became: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    posts = [
        {
            "receipt": each.receipt,
            "first_row": each.numbers[0],
            "last_row": each.numbers[-1],
            "rows": len(each.numbers),
            "may_be_twice": each.may_be_twice,
            "outcome": became.get(each.receipt),
        }
        for each in sent
    ]
    return {"stream": stream, "rows": sum(len(each.numbers) for each in sent), "posts": posts, "not_taken": [asdict(each) for each in missed]}


def _show_outcome(sent: Sequence[Taken], became: Mapping[str, dict[str, Any]]) -> None:
    landed = [answer["rows"] for answer in became.values() if answer["rows"]]
    totals = [sum(rows[name] for rows in landed) for name in COUNTS]
    table("", ("posts", *COUNTS), [(len(landed), *totals)])
    for each in sent:
        answer = became.get(each.receipt)
        if answer is None or answer["status"] != "landed":
            said = answer["detail"] if answer else "safe, and not known to have landed; `tidemark status` shows whether landing runs"
            errors.print(f"{each.receipt} ({_rows(each.numbers[0], each.numbers[-1])}): {said}", markup=False, soft_wrap=True)
    refused = [row for answer in became.values() for row in answer["refused"]]
    if refused:
        console.print(f"{sum(answer['refused_rows'] for answer in became.values()):,} rows are in quarantine, where `tidemark quarantine list` shows them:")
        _show_refused(refused)
