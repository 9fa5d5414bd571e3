"""`tidemark twin`: a device as it is meant to be, as it reports, and how it is."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from include.commands.console import console, duration, print_json, table
from include.commands.stack import Json
from include.stack.errors import StackError

if TYPE_CHECKING:
    import psycopg

TWIN = """
select twin.*, newest.as_of_at, extract(epoch from newest.as_of_at - twin.last_contact_at)::float8 as silent_s
from maintenance.rpt_device_twin as twin
cross join lateral (select max(other.last_contact_at) as as_of_at from maintenance.rpt_device_twin as other where other.tenant_id = twin.tenant_id) as newest
where twin.tenant_id = %s and twin.device_id = %s
"""
PATTERNS = """
select pattern_code, started_at, duration_s, event_codes from maintenance.fct_pattern_match
where tenant_id = %s and device_id = %s order by started_at desc, pattern_code limit %s
"""
PATTERNS_SHOWN = 5
PROPERTIES = (
    ("firmware", "firmware_version", "firmware"),
    ("reporting interval, s", "reporting_interval_s", "interval"),
    ("set point, °C", "setpoint_c", "setpoint"),
)
NEAR = 5
LEAST_LIKENESS = 0.5  # of difflib: machine_1 finds machine_001, lock_001 does not


def find_twin(device: str, tenant: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads a twin and its newest patterns, as the analyst role.

    Args:
        device: The device.
        tenant: Whose it is.

    Returns:
        Columns of `maintenance.rpt_device_twin` with `as_of_at` (newest contact with any device of the tenant) and `silent_s` (from the device's last contact
        up to it), and the last rows of `maintenance.fct_pattern_match`, newest first.

    Raises:
        StackError: If the marts are not built, or there is no such device; the message names near ones.
    """
    import psycopg
    from psycopg.rows import dict_row

    from include.warehouse import Role, connect

    with connect(Role.ANALYST, autocommit=True) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        try:
            found = cursor.execute(TWIN, (tenant, device)).fetchone()
            if found is None:
                raise _unknown(connection, device, tenant)
            patterns = cursor.execute(PATTERNS, (tenant, device, PATTERNS_SHOWN)).fetchall()
        except psycopg.errors.UndefinedTable as error:
            raise StackError("there are no twins yet: maintenance.rpt_device_twin has not been built", "build the marts with `tidemark build`") from error
    return {name: value for name, value in found.items() if not name.startswith("_")}, patterns


def _unknown(connection: psycopg.Connection, device: str, tenant: str) -> StackError:
    """What to say of a device that is not there: near names, or the tenant that has it."""
    known = connection.execute("select tenant_id, device_id from maintenance.rpt_device_twin order by 1, 2").fetchall()
    own = [name for owner, name in known if owner == tenant]
    hints = []
    if near := get_close_matches(device, own, NEAR, LEAST_LIKENESS):
        hints.append(f"near names are {', '.join(near)}")
    if owners := [owner for owner, name in known if name == device]:
        hints.append(f"tenant {', '.join(owners)} has a device of this name: add --tenant {owners[0]}")
    if not own:
        tenants = ", ".join(sorted({owner for owner, _ in known}))
        hints.append(f"tenants with devices are {tenants}" if tenants else "no device was registered or heard of; land some data and build the marts")
    hints.append("`tidemark sql 'select tenant_id, device_id from maintenance.rpt_device_twin'` lists all")
    return StackError(f"tenant {tenant} has no device {device!r}", "; ".join(hints))


def twin(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The device, as it calls itself.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose device it is.")] = "default",
    as_json: Json = False,
) -> None:
    """Show a device as it is meant to be and as it reports, since when the two differ, when it was last heard of and how it is.

    Examples: tidemark twin machine_001; tidemark twin thermostat_002 --tenant shop_7 --json
    """
    found, patterns = find_twin(device, tenant)
    if as_json:
        print_json(found | {"patterns": patterns})
        return
    _print(found, patterns)


def _print(found: dict[str, Any], patterns: list[dict[str, Any]]) -> None:
    about = (
        ("status", found["twin_status"].replace("_", " ")),
        ("type, model", _listed(found["device_type"], found["model_name"])),
        ("place", _listed(found["facility_id"], found["line_id"])),
        ("registry", found["registry_status"] or "not registered"),
        ("last contact", _since(found["last_contact_at"], found["silent_s"], "before the newest of the tenant")),
        ("state", _stated(found["reported_state"], found["reported_state_since_at"])),
        ("last event", _stated(_listed(found["last_event_type"], found["last_event_code"]), found["last_event_at"])),
        ("last error", _stated(found["last_error_code"], found["last_error_at"])),
        ("battery, %", found["battery_pct"]),
        ("health, 0 to 100", found["health_score"]),
        ("health of", found["health_date"]),
        ("firmware by the registry", found["registered_firmware_version"]),
    )
    table(_as_text(f"{found['device_id']} of tenant {found['tenant_id']}"), ("", ""), [(what, _as_text(value)) for what, value in about])
    rows = []
    for title, column, name in PROPERTIES:
        drifts = found[f"is_{name}_drifting"]
        verdict = {None: None, True: "[red]drifts[/red]", False: "[green]as desired[/green]"}[drifts]
        since = found[f"{name}_drifting_since_at"] if drifts else found[f"{name}_reported_since_at"]
        age = duration(found[f"{name}_drift_s"]) if drifts else None
        rows.append((title, _as_text(found[f"target_{column}"]), _as_text(found[f"reported_{column}"]), verdict, since, age))
    table("Desired and reported", ("property", "desired", "reported", "verdict", "since, UTC", "age"), rows)
    if patterns:
        shown = [(row["pattern_code"], row["started_at"], duration(row["duration_s"]), _as_text(row["event_codes"])) for row in patterns]
        table(f"Last patterns of events, up to {PATTERNS_SHOWN}", ("pattern", "began, UTC", "lasted", "codes"), shown)
    if found["as_of_at"] is not None:
        ago = duration((datetime.now(UTC) - found["as_of_at"]).total_seconds())
        console.print(f"The newest contact with any device of the tenant was at {found['as_of_at']:%Y-%m-%d %H:%M:%S} UTC, {ago} ago.")


def _as_text(value: Any) -> Any:  # noqa: ANN401  whatever a column holds
    """A value that stays what it is in a table: brackets in names and codes of devices are no markup."""
    return escape(value) if isinstance(value, str) else value


def _listed(*values: object) -> str | None:
    return ", ".join(str(value) for value in values if value is not None) or None


def _stated(value: str | None, at: datetime | None) -> str | None:
    return f"{value} since {at:%Y-%m-%d %H:%M:%S} UTC" if value is not None and at is not None else value


def _since(at: datetime | None, seconds: float | None, what: str) -> str:
    if at is None:
        return "never"
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" + (f", {duration(seconds)} {what}" if seconds else "")
