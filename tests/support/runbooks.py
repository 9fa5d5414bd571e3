"""Commands of a runbook, as a reader would type them."""

from __future__ import annotations

import re
import shlex

from include.settings import REPOSITORY


def commands(name: str) -> list[list[str]]:
    """Arguments of every `tidemark` command in the fenced `sh` blocks of docs/runbooks/<name>.md, in order; remarks behind them are left out."""
    text = (REPOSITORY / "docs/runbooks" / f"{name}.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0] == "tidemark"]
