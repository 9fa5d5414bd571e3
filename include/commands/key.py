"""`tidemark key`: who may post to the gateway."""

from __future__ import annotations

import getpass
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from include.commands.console import console, errors, print_json, table
from include.commands.stack import Json
from include.stack.windows import moment

if TYPE_CHECKING:
    from include.gateway.keys.administration import ApiKey

app = typer.Typer(no_args_is_help=True, help="Keys of the gateway: who may post which streams, for whom, how often and until when.")

By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it; the login name if not given.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Its id, 16 hexadecimal digits, as `tidemark key list` shows it.")]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
EFFECT = "A running gateway knows it within 5 s."


@app.command()
def create(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose events it posts; it can neither write nor read another's.")],
    stream: Annotated[list[str] | None, typer.Option("--stream", help="A stream that it may use; may be given several times. All if not given.")] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Posts that it may send, such as '50/second;1000/minute'; no bound if not given.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", metavar="MOMENT", help="When it ends, UTC; never if not given.")] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, max=36_500, help="How many days it is good, instead of --expires.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="What it is for.")] = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Make a key. It stands alone on standard output, this one time: only its hash is kept.

    Examples: tidemark key create --tenant shop_7 --stream orders --rate 50/second --days 365; KEY=$(tidemark key create --tenant default)
    """
    from include.gateway.keys import administration

    if expires is not None and days is not None:
        raise typer.BadParameter("give --expires or --days, not both")
    try:
        until = moment(expires, "--expires") if expires is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if days is not None:
        until = datetime.now(UTC) + timedelta(days=days)
    key, token = administration.create(tenant, by=by or getpass.getuser(), only=stream or (), rate=rate, expires_at=until, note=note)
    _hand_over(key, token, as_json)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Keys of this tenant.")] = None,
    as_json: Json = False,
) -> None:
    """Show every key, also those that have ended; never a secret.

    Example: tidemark key list --tenant shop_7
    """
    from include.gateway.keys import administration

    found = administration.list_keys(tenant)
    if as_json:
        print_json([asdict(key) for key in found])
        return
    rows = []
    for key in found:
        may = ", ".join(key.streams or ["all"])
        rows.append((key.key_id, key.state, key.tenant_id, may, key.rate, key.created_at, key.expires_at, escape(key.note or "")))
    table("", ("key", "state", "tenant", "streams", "rate", "created", "expires", "note"), rows, unbroken="key")


@app.command()
def rotate(
    key: KeyId,
    grace: Annotated[str, typer.Option("--grace", help="How long the old key stays good: 90s, 30m, 24h, 7d, or 0s.")] = "24h",
    by: By = None,
    as_json: Json = False,
) -> None:
    """Make a successor for the same tenant, streams and rate, good for as long as the old key was. It stands alone on standard output, this one time.

    Example: tidemark key rotate 0f3a9c5d21e47b68 --grace 7d
    """
    from include.gateway.keys import administration

    old, new, token = administration.rotate(_id(key), grace=_span(grace), by=by or getpass.getuser())
    if not as_json:
        errors.print(f"{old.key_id} is good until {old.expires_at:%Y-%m-%d %H:%M:%S} UTC")
    _hand_over(new, token, as_json)


@app.command()
def revoke(key: KeyId, by: By = None, as_json: Json = False) -> None:
    """End a key for good. Posts that were acknowledged stay.

    Example: tidemark key revoke 0f3a9c5d21e47b68
    """
    from include.gateway.keys import administration

    revoked = administration.revoke(_id(key), by=by or getpass.getuser())
    if as_json:
        print_json(asdict(revoked))
        return
    console.print(f"{revoked.key_id} of {revoked.tenant_id} was revoked at {revoked.revoked_at:%Y-%m-%d %H:%M:%S} UTC. {EFFECT}")
    if revoked.replaced_by:
        console.print(f"{revoked.replaced_by}, which it was rotated to, is another key and stays as it is")


def _hand_over(key: ApiKey, token: str, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(key), "key": token})
        return
    until = f"until {key.expires_at:%Y-%m-%d %H:%M:%S} UTC" if key.expires_at else "without end"
    may = f"{', '.join(key.streams or ['all streams'])}, {key.rate or 'as often as it likes'}, {until}"
    errors.print(f"{key.key_id} posts for {key.tenant_id}: {may}", markup=False)
    errors.print(f"The key is shown this one time. {EFFECT}")
    print(token)  # noqa: T201  alone, so that a script can take it


def _id(text: str) -> str:
    from include.gateway.keys.token import named_id

    key_id = named_id(text)
    if key_id is None:
        raise typer.BadParameter("KEY is 16 hexadecimal digits, as `tidemark key list` shows them")  # not repeated: it may be a secret
    return key_id


def _span(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if match is None:
        raise typer.BadParameter(f"--grace must be like 90s, 30m, 24h or 7d, got {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
