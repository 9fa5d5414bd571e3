"""Starts one process of the stack under the supervisor: `python -m include.stack.component scheduler`.

Before it becomes that process, it ends what a predecessor that was killed left behind: the workers of a dead scheduler wait on a queue
that nobody fills any more, and would stay for ever.
"""

from __future__ import annotations

import os
import sys

import psutil

from include.stack.airflow_env import STACK_MARK

COMPONENT_MARK = "TIDEMARK_COMPONENT"
GATEWAY = "gateway"
COMMANDS: dict[str, tuple[str, ...]] = {  # what Python runs as a module, with its arguments
    "api-server": ("airflow", "api-server"),
    "scheduler": ("airflow", "scheduler", "--skip-serve-logs"),
    "dag-processor": ("airflow", "dag-processor"),
    "triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
    GATEWAY: ("include.gateway",),
}
KILL_WAIT_S = 5.0


def marked_processes(stack: str, component: str | None = None) -> list[psutil.Process]:
    """Running processes of a stack, found by the mark in their environment, without this one and its ancestors.

    Args:
        stack: The mark's value: the home folder of the stack.
        component: Only processes of this component.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid in own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
        if environment.get(STACK_MARK) == stack and component in (None, environment.get(COMPONENT_MARK)):
            found.append(process)
    return found


def end_processes(processes: list[psutil.Process]) -> int:
    """Kills processes and waits until they are gone. Returns how many there were."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=KILL_WAIT_S)
    return len(processes)


def main() -> None:
    """Replaces this process by the component."""
    name = sys.argv[1]
    end_processes(marked_processes(os.environ[STACK_MARK], name))
    os.execv(sys.executable, [sys.executable, "-m", *COMMANDS[name]])  # noqa: S606  no shell


if __name__ == "__main__":
    main()
