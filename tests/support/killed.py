"""Processes that are killed at work.

They are forked from one that has imported the house already: importing takes longer than the work that is interrupted, and a test may kill a dozen of them.
That process does nothing else, so it has no threads, connections or settings that a fork would share.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

from include.landing.crash import CRASH_AT
from include.settings import REPOSITORY

KILLED = -signal.SIGKILL
PATIENCE_S = 300
HOUSE = ("include.landing", "include.landing.replay", "include.landing.new_columns", "include.lake.recall", "include.lake.retention", "tests.support.aged")
TRANSFORM = (*HOUSE, "include.lake.rebuild", "dbt.cli.main", "dbt.adapters.postgres")


def killed_at(step: str, code: str, *, imports: tuple[str, ...] = HOUSE) -> int:
    """Runs code in a process that is killed at a step, and returns its exit code: `KILLED` if it came so far. What it wrote otherwise is printed.

    Args:
        step: The step, see `include.landing.crash`.
        code: Python, run as a script in the environment of this process.
        imports: Modules that are imported once for all such processes.
    """
    with tempfile.NamedTemporaryFile() as output:
        environment = os.environ | {CRASH_AT: str(step), "PYTHONPATH": str(REPOSITORY)}
        nursery = _nursery()
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(json.dumps({"code": code, "environment": environment, "imports": imports, "output": output.name}) + "\n")
        nursery.stdin.flush()
        status = int(nursery.stdout.readline())
        if status != KILLED:
            print(Path(output.name).read_text(encoding="utf-8"))  # noqa: T201 - pytest shows it with the failure
    return status


@cache
def _nursery() -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=clean)

    @atexit.register
    def end() -> None:
        process.communicate()  # it ends with its input

    return process


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        for module in request["imports"]:
            importlib.import_module(module)
        child = os.fork()
        if child == 0:
            _work(request["code"], request["environment"], request["output"])
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _work(code: str, environment: dict[str, str], output: str) -> None:
    """Runs code and ends this process."""
    signal.alarm(PATIENCE_S)
    target = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.environ.clear()
    os.environ.update(environment)
    try:
        exec(compile(code, "<code to be killed>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve()
