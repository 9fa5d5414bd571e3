"""Commands of a runbook, as a reader would type them."""

from __future__ import annotations

import re
import shlex

from include.settings import REPOSITORY


def shell(name: str) -> str:
    """Everything in the fenced `sh` blocks of docs/runbooks/<name>.md, in order, for a shell."""
    text = (REPOSITORY / "docs/runbooks" / f"{name}.md").read_text(encoding="utf-8")
    return "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))


def commands(name: str) -> list[list[str]]:
    """Arguments of every `tidemark` command in the fenced `sh` blocks of docs/runbooks/<name>.md, in order; remarks behind them are left out."""
    words = [shlex.split(line, comments=True) for line in shell(name).splitlines()]
    return [line[1:] for line in words if line and line[0] == "tidemark"]
