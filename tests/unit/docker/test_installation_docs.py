"""What the runbooks of operating the house claim and a test can check: links lead somewhere, commands and services exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from include.cli import app
from include.settings import REPOSITORY, Settings

NAMES = ("install-server", "backfill", "upgrade", "quarantine", "retention", "restore-from-lake", "schema-change", "api-keys", "connect-a-device")
RUNBOOKS = [REPOSITORY / "docs/runbooks" / f"{name}.md" for name in NAMES]
DECISIONS = sorted((REPOSITORY / "docs/decisions").glob("*.md"))
PAGES = [*RUNBOOKS, REPOSITORY / "CONTRIBUTING.md", *DECISIONS]
MOST_LINES = 40


def page_id(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_their_options_exist(page: Path) -> None:
    commands: Any = typer.main.get_command(app)
    for words in re.findall(r"(?:^|`|exec api-server |or `)(?:\.venv/bin/)?tidemark ([^`\n#]+)", page.read_text(), re.MULTILINE):
        found = commands
        rest = words.split()
        while hasattr(found, "commands"):
            name = rest.pop(0) if rest else ""
            assert name in found.commands, f"tidemark {words}: no command {name}"
            found = found.commands[name]
        if found.name == "airflow":
            continue
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known, f"tidemark {words}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_exist(page: Path) -> None:
    known = {f"TIDEMARK_{name.upper()}" for name in Settings.model_fields}
    others = {"TIDEMARK_STACK", "TIDEMARK_PSEUDONYM_KEY", "TIDEMARK_API_KEY"}
    assert set(re.findall(r"TIDEMARK_[A-Z_]*[A-Z]", page.read_text())) <= known | others


def test_the_runbook_names_every_service(compose: dict[str, Any]) -> None:
    text = RUNBOOKS[0].read_text()
    assert all(f"`{service}`" in text for service in compose["services"])
    assert compose["services"]["postgres"]["image"] in text


def test_decisions_are_short_numbered_and_listed() -> None:
    pages = [page for page in DECISIONS if page.name != "README.md"]
    assert [page.name[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    index = (REPOSITORY / "docs/decisions/README.md").read_text()
    for page in pages:
        lines = page.read_text().splitlines()
        assert len(lines) <= MOST_LINES, page.name
        title = lines[0].removeprefix(f"# {page.name[:4]} ")
        assert f"[{page.name[:4]}]({page.name}) | {title}" in index
        assert re.fullmatch(r"Date: \d{4}-\d{2}-\d{2}", lines[2]), page.name
