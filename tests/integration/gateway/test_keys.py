"""Keys from the command to the gateway: made, listed, rotated, revoked; in force within 30 s; and without the warehouse."""

from __future__ import annotations

import json
import logging
import stat
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from include.cli import app
from include.gateway.errors import ApiKeyError
from include.gateway.keys import administration
from include.gateway.keys.ring import KeyRing
from include.gateway.keys.token import digest_of
from include.landing.zone import Zone, ZoneError
from include.settings import SettingsError, get_settings, read_secrets, store_secret
from include.warehouse import Role, WarehouseUnavailable, connect
from include.warehouse.connection import password_name
from tests.conftest import Warehouse, set_environment
from tests.integration.test_commands import error_of, run, run_json
from tests.support.databases import free_port


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def ring(warehouse: Warehouse, tmp_path: Path):
    """A ring whose refresh the test drives itself, without a clock of its own."""
    made = KeyRing(tmp_path / "gateway" / "keys.json")
    yield made
    made.stop()


def knows(ring: KeyRing, token: str) -> bool:
    return ring.find(token.encode()) is not None


def make(*options: str) -> tuple[dict, str]:
    """A key from the command, and its token."""
    made = run_json("key", "create", *options)
    assert isinstance(made, dict)
    return made, made["key"]


@contextmanager
def no_warehouse(monkeypatch: pytest.MonkeyPatch):
    """The warehouse cannot be reached."""
    with monkeypatch.context() as patch:
        set_environment(patch, TIDEMARK_WAREHOUSE_URL=f"postgresql://127.0.0.1:{free_port()}/tidemark")
        yield
    get_settings.cache_clear()


def test_a_key_is_shown_once_and_only_its_hash_is_kept(warehouse: Warehouse, ring: KeyRing) -> None:
    options = ["--tenant", "shop_7", "--stream", "orders", "--stream", "customers", "--rate", "50 per second", "--days", "30", "--note", "till [3]"]
    done = CliRunner().invoke(app, ["key", "create", *options])
    token = done.stdout.strip()
    assert "\n" not in token
    assert "posts for shop_7: customers, orders, 50/second, until" in done.stderr
    assert token not in done.stderr
    listed = run_json("key", "list")
    assert isinstance(listed, list)
    (key,) = listed
    assert (key["tenant_id"], key["streams"], key["rate"], key["note"], key["state"]) == ("shop_7", ["customers", "orders"], "50/second", "till [3]", "active")
    assert "till [3]" in run("key", "list")
    assert run_json("key", "list", "--tenant", "other") == []
    secret = token.split("_")[2]
    assert secret not in json.dumps(listed) + run("key", "list")
    stored = warehouse.rows("select * from ops.api_key")
    assert secret not in str(stored)
    assert digest_of(token.encode()) in stored[0]
    ring.refresh()
    caller = ring.find(token.encode())
    assert caller is not None
    assert (caller.tenant_id, caller.streams, caller.rate) == ("shop_7", frozenset({"customers", "orders"}), "50/second")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tenant", "shop 7"], "tenant 'shop 7' is unfit"),
        (["--tenant", "../shop"], "is unfit"),
        (["--tenant", ""], "is unfit"),
        (["--tenant", "shop\n"], "is unfit"),
        (["--tenant", "t", "--stream", "order"], "there is no stream 'order'; streams are customers, "),
        (["--tenant", "t", "--rate", "often"], "'often' is no rate; write for example 50/second;1000/minute"),
        (["--tenant", "t", "--rate", "0/second"], "lets nothing through"),
        (["--tenant", "t", "--expires", "2020-01-01"], "would have expired at 2020-01-01 00:00:00 UTC, which is past"),
        (["--tenant", "t", "--note", "two\nlines"], "a note is one line of at most 200 characters"),
    ],
)
def test_values_that_are_unfit_are_refused(warehouse: Warehouse, monkeypatch, capsys, options: list[str], said: str) -> None:
    assert said in error_of(monkeypatch, capsys, "key", "create", *options)
    assert warehouse.value("select count(*) from ops.api_key") == 0


@pytest.mark.parametrize("arguments", [["create", "--tenant", "t", "--expires", "soon"], ["create", "--tenant", "t", "--expires", "2999-01-01", "--days", "3"]])
def test_options_that_contradict_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["key", *arguments]).exit_code == 2


def test_a_tenant_of_a_key_is_a_folder_of_the_zone(warehouse: Warehouse) -> None:
    zone = Zone(get_settings().zone_url)
    for tenant in ("a", "A.b_c@d+e-f", "0" * 128, "x" * 129, "-a", ".a", "a b", "a/b", "ä"):
        try:
            zone.put("orders", b"{}", name="a.ndjson", arrived_at=datetime(2026, 1, 1, tzinfo=UTC), tenant=tenant)
            is_folder = True
        except ZoneError:
            is_folder = False
        try:
            administration.create(tenant, by="test")
            is_tenant = True
        except ApiKeyError:
            is_tenant = False
        assert is_tenant == is_folder, tenant


def test_revocation_and_rotation_are_in_force_after_one_refresh(warehouse: Warehouse, ring: KeyRing, monkeypatch, capsys) -> None:
    _, gone = make("--tenant", "t")
    old, first = make("--tenant", "t", "--stream", "orders", "--rate", "5/second", "--note", "till", "--days", "10")
    ring.refresh()
    assert (knows(ring, gone), knows(ring, first)) == (True, True)
    assert "was revoked" in run("key", "revoke", gone)  # a pasted key is taken for its id
    new = run_json("key", "rotate", old["key_id"], "--grace", "1h")
    assert isinstance(new, dict)
    assert (knows(ring, gone), knows(ring, new["key"])) == (True, False)
    ring.refresh()
    assert [knows(ring, token) for token in (gone, first, new["key"])] == [False, True, True]
    same = ("tenant_id", "streams", "rate", "note")
    assert [new[name] for name in same] == [old[name] for name in same]
    life = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert abs(life - timedelta(days=10)) < timedelta(minutes=5)
    states = {key.key_id: key.state for key in administration.list_keys()}
    assert sorted(states.values()) == ["active", "revoked", "rotated"]
    assert f"cannot be rotated: it is rotated to {new['key_id']}" in error_of(monkeypatch, capsys, "key", "rotate", old["key_id"])
    run("key", "rotate", new["key_id"], "--grace", "0s")
    ring.refresh()
    assert [knows(ring, token) for token in (first, new["key"])] == [True, False]
    assert "is another key and stays" in run("key", "revoke", old["key_id"])
    assert run_json("key", "revoke", old["key_id"])["state"] == "revoked"  # again changes nothing
    ring.refresh()
    assert not knows(ring, first)


def test_a_key_that_is_not_there_is_said(warehouse: Warehouse, monkeypatch, capsys) -> None:
    for command in ("rotate", "revoke"):
        assert "there is no key 0123456789abcdef" in error_of(monkeypatch, capsys, "key", command, "0123456789abcdef")
    refused = CliRunner().invoke(app, ["key", "revoke", "tmk_0123_secret"])
    assert (refused.exit_code, "secret" in refused.output) == (2, False)
    assert CliRunner().invoke(app, ["key", "rotate", "0123456789abcdef", "--grace", "1 moon"]).exit_code == 2


def test_the_grace_never_puts_off_an_end(warehouse: Warehouse) -> None:
    key, _ = administration.create("t", by="test", expires_at=datetime.now(UTC) + timedelta(hours=1))
    old, _, _ = administration.rotate(key.key_id, grace=timedelta(days=7), by="test")
    assert old.expires_at == key.expires_at


def test_no_role_does_more_with_keys_than_it_must(warehouse: Warehouse) -> None:
    key, _ = administration.create("t", by="test", expires_at=datetime(2999, 1, 1, tzinfo=UTC))
    administration.create("t", by="test")
    forbidden = {
        Role.KEYS: (
            "select secret_hash from ops.api_key",
            "update ops.api_key set tenant_id = 'other'",
            "update ops.api_key set streams = null",
            "update ops.api_key set secret_hash = sha256('x')",
            "delete from ops.api_key",
            "insert into ops.api_key (key_id, secret_hash, tenant_id, created_by, created_at) values ('0123456789abcdef', sha256('x'), 't', 'x', now())",
            "select * from ops.file",
            "create table ops.mine ()",
            "create table public.mine ()",
        ),
        Role.API: ("insert into ops.api_key default values", "update ops.api_key set revoked_at = null", "select note from ops.api_key"),
        **dict.fromkeys((Role.LOADER, Role.TRANSFORMER, Role.ML, Role.ANALYST), ("select key_id from ops.api_key", "delete from ops.api_key")),
    }
    for role, statements in forbidden.items():
        for statement in statements:
            with connect(role, autocommit=True) as connection, pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
                connection.execute(statement)
    administration.revoke(key.key_id, by="test")
    for statement in ("update ops.api_key set revoked_at = null, revoked_by = null", "update ops.api_key set expires_at = null"):
        with connect(Role.KEYS, autocommit=True) as connection, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="final"):
            connection.execute(statement + f" where key_id = '{key.key_id}'")
    limited, _ = administration.create("t", by="test", expires_at=datetime(2999, 1, 1, tzinfo=UTC))
    with connect(Role.KEYS, autocommit=True) as connection, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="brought forward"):
        connection.execute("update ops.api_key set expires_at = '2999-01-02' where key_id = %s", (limited.key_id,))


def test_the_copy_serves_a_start_without_the_warehouse(warehouse: Warehouse, ring: KeyRing, tmp_path: Path, monkeypatch) -> None:
    copy, clock = tmp_path / "gateway" / "keys.json", Clock()
    _, lasting = make("--tenant", "t")
    _, limited = make("--tenant", "t", "--days", "1")
    ring.refresh()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in copy.parent.iterdir()] == ["keys.json"]
    text = copy.read_text()
    assert not any(token.split("_")[2] in text for token in (lasting, limited))
    written = copy.stat().st_ino
    ring.refresh()
    assert copy.stat().st_ino == written  # the same list is not written again
    with no_warehouse(monkeypatch):
        again = KeyRing(copy, clock=clock)
        again.load_copy()
        with pytest.raises(WarehouseUnavailable):
            again.refresh()
        assert again.age_s is None
        assert [knows(again, token) for token in (lasting, limited)] == [True, True]
        clock.now += timedelta(hours=25)
        assert [knows(again, token) for token in (lasting, limited)] == [True, False]
    clock.now -= timedelta(hours=25)
    run("key", "revoke", lasting)
    again.refresh()
    assert [knows(again, token) for token in (lasting, limited)] == [False, True]
    assert again.age_s is not None
    again.stop()
    after = KeyRing(copy, clock=clock)
    after.load_copy()
    assert [knows(after, token) for token in (lasting, limited)] == [False, True]


def test_the_ring_lives_through_a_warehouse_that_comes_and_goes(warehouse: Warehouse, ring: KeyRing, monkeypatch, caplog) -> None:
    caplog.set_level(logging.WARNING, "tidemark.gateway")
    _, token = make("--tenant", "t")
    ring.refresh()
    with no_warehouse(monkeypatch):
        ring._connection.close()
        for _ in range(3):
            ring._refresh_or_say()
        assert knows(ring, token)
    run("key", "revoke", token)
    ring._refresh_or_say()
    assert not knows(ring, token)
    said = [record.message for record in caplog.records]
    assert len(said) == 2  # once that it is away, once that it is back
    assert "the API keys stay as they were last read (1 of them)" in said[0]
    assert "are read again (0 of them)" in said[1]


def test_a_copy_that_cannot_be_written_is_said_and_the_keys_are_good(warehouse: Warehouse, tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    found = KeyRing(tmp_path / "file" / "keys.json")
    _, token = make("--tenant", "t")
    found._refresh_or_say()
    found._refresh_or_say()
    assert knows(found, token)
    assert [record.message.startswith("the copy of the API keys cannot be written to") for record in caplog.records] == [True]
    found.stop()


def test_a_program_of_the_house_gets_a_key_of_its_own_into_the_secrets_file(warehouse: Warehouse, ring: KeyRing, tmp_path: Path, monkeypatch) -> None:
    secrets_file = tmp_path / "secrets"
    secrets_file.write_bytes(get_settings().secrets_path.read_bytes())
    set_environment(monkeypatch, TIDEMARK_SECRETS_FILE=str(secrets_file))

    def ensure() -> str:
        administration.ensure_secret_key("SENDER_KEY", tenant="default", note="sender", by="tidemark up")
        ring.refresh()
        token = read_secrets(secrets_file)["SENDER_KEY"]
        assert knows(ring, token)
        return token

    first = ensure()
    assert stat.S_IMODE(secrets_file.stat().st_mode) == 0o600
    assert ensure() == first
    assert len(administration.list_keys()) == 1
    administration.revoke(first.split("_")[1], by="test")
    second = ensure()
    assert second != first
    warehouse.execute("delete from ops.api_key")  # a warehouse that was set up anew, or an `up` that broke off between file and table
    assert ensure() == second
    assert password_name(Role.KEYS) in read_secrets(secrets_file)  # nothing else was lost
    store_secret("SENDER_KEY", "guess")
    with pytest.raises(SettingsError, match=r"SENDER_KEY in .* is not an API key"):
        ensure()
