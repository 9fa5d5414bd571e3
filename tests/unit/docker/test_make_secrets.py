"""The script that generates the secrets of a server installation, on a host with next to nothing."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import read_secrets
from include.stack.airflow_env import AIRFLOW_SECRETS
from include.warehouse import Role
from include.warehouse.connection import password_name

POSIX_TOOLS = ["sh", "dirname", "mkdir", "chmod", "chown", "cat", "cp", "mv", "grep", "touch", "tr", "id"]
ROLES = [password_name(role) for role in Role]
NEEDED = {"WAREHOUSE_ADMIN_URL", "TIDEMARK_PSEUDONYM_KEY", *AIRFLOW_SECRETS, *ROLES}


def run(script: Path, *programs: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where only the POSIX tools and the named programs can be found."""
    folder = script.parent.parent / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for program in (*POSIX_TOOLS, *programs):
        found = str(Path(sys.executable).resolve()) if program == "python3" else shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed")
        (folder / program).symlink_to(found)
    return subprocess.run(["/bin/sh", script], env={"PATH": str(folder), "HOME": os.environ.get("HOME", "/")}, capture_output=True, text=True)


@pytest.mark.parametrize("generator", ["openssl", "python3"])
def test_every_secret_that_the_code_asks_for_is_made(secrets_maker: Path, generator: str) -> None:
    done = run(secrets_maker, generator)
    assert done.returncode == 0, done.stderr
    folder = secrets_maker.parent / "secrets"
    made = read_secrets(folder / "prepare")
    assert set(made) == NEEDED
    values = [value for name, value in made.items() if name != "WAREHOUSE_ADMIN_URL"]
    assert len(set(values)) == len(values)
    assert all(len(base64.urlsafe_b64decode(f"{value}=")) == 32 for value in values)
    assert made["WAREHOUSE_ADMIN_URL"] == f"postgresql://postgres:{(folder / 'postgres_password').read_text()}@postgres:5432/postgres"
    assert not any(value in done.stdout + done.stderr for value in values)


def test_running_processes_know_neither_administrator_nor_owner_nor_who_makes_keys(secrets_maker: Path) -> None:
    run(secrets_maker, "openssl")
    folder = secrets_maker.parent / "secrets"
    everything = read_secrets(folder / "prepare")
    running = read_secrets(folder / "tidemark")
    assert set(everything) - set(running) == {"WAREHOUSE_ADMIN_URL", password_name(Role.OWNER), password_name(Role.KEYS)}
    assert running.items() <= everything.items()


def test_only_their_user_can_read_the_files(secrets_maker: Path) -> None:
    run(secrets_maker, "openssl")
    folder = secrets_maker.parent / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["postgres_password", "prepare", "tidemark"]
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if os.geteuid() == 0:
        assert {(folder / name).stat().st_uid for name in ("prepare", "tidemark")} == {10001}
    else:
        assert f"IMAGE_UID={os.getuid()}" in (secrets_maker.parent / ".env").read_text().splitlines()


def test_what_exists_is_kept_and_what_is_missing_is_added(secrets_maker: Path) -> None:
    run(secrets_maker, "openssl")
    folder = secrets_maker.parent / "secrets"
    before = read_secrets(folder / "prepare")
    kept = {name: value for name, value in before.items() if name != "TIDEMARK_ML_PASSWORD"} | {"MY_OWN": "x=y"}
    (folder / "prepare").write_text("".join(f"{name}={value}\n" for name, value in kept.items()))
    done = run(secrets_maker, "openssl")
    assert done.stdout.startswith("1 secrets added")
    after = read_secrets(folder / "prepare")
    assert kept.items() <= after.items()
    assert set(after) - set(kept) == {"TIDEMARK_ML_PASSWORD"}
    assert read_secrets(folder / "tidemark")["MY_OWN"] == "x=y"
    assert run(secrets_maker, "openssl").stdout.startswith("0 secrets added")
    assert read_secrets(folder / "prepare") == after


def test_without_a_source_of_randomness_it_says_so(secrets_maker: Path) -> None:
    done = run(secrets_maker)
    assert done.returncode != 0
    assert "needs openssl or python3" in done.stderr
    assert not (secrets_maker.parent / "secrets" / "tidemark").exists()
