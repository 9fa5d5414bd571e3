"""The files of the server installation, read once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.settings import REPOSITORY

DOCKER = REPOSITORY / "docker"


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), with continued lines joined."""
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line and not line.startswith("#"))]


@pytest.fixture(scope="session")
def copies(instructions: list[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """(sources, target) of every COPY out of the build context into the last stage."""
    last_stage = max(number for number, (word, _) in enumerate(instructions) if word == "FROM")
    found = [rest.split() for word, rest in instructions[last_stage:] if word == "COPY" and not rest.startswith("--from")]
    return [(words[:-1], words[-1]) for words in found]


@pytest.fixture
def secrets_maker(tmp_path: Path) -> Path:
    """make-secrets alone in a folder, as it would be in a clone's docker/."""
    folder = tmp_path / "docker"
    folder.mkdir()
    return Path(shutil.copy(DOCKER / "make-secrets", folder))
