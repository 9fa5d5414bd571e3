"""Which process is killed when: a list made from a seed, tied to steps of work instead of to the clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from include.landing.crash import Step


class Victim(StrEnum):
    """What is killed."""

    LOADER = "loader"
    DBT = "dbt"
    POSTGRES = "postgres"
    """The postmaster and all of its processes at once."""
    POSTMASTER = "postmaster"
    """The postmaster alone, as the kernel does when memory runs out; its orphans go on for a while."""
    BACKEND = "backend"
    """One backend at work: the postmaster stops all the others and recovers by itself."""


POSTGRES = {Victim.POSTGRES, Victim.POSTMASTER, Victim.BACKEND}

# Steps at which a load has a transaction open; from REGISTERED on it has written something.
IN_TRANSACTION = (
    Step.AFTER_STREAM_LOCK,
    Step.AFTER_VALIDATION,
    Step.AFTER_LOOKUP,
    Step.MID_COPY,
    Step.AFTER_COPY,
    Step.BEFORE_LEDGER,
    Step.BEFORE_COMMIT,
)
REGISTERED = IN_TRANSACTION[1:]
AROUND = (Step.AFTER_LISTING, Step.AFTER_READ, Step.AFTER_COMMIT)
"""Steps without a transaction: killed at as well, and not counted."""


class Part(StrEnum):
    """Parts of the transaction of a dbt model, in their order; a model that exists is not created, one that does not is not computed and written."""

    COLLECT = "collect"
    CREATE = "create"
    COMPUTE = "compute"
    WRITE = "write"
    LOG = "log"
    COMMIT = "commit"


@dataclass(frozen=True)
class Model:
    """A table that dbt fills.

    Attributes:
        name: Its name.
        task: Position of the task that builds it among the tasks of the builder.
        is_incremental: Whether it follows touched buckets, or is refilled.
    """

    name: str
    task: int
    is_incremental: bool


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        number: Its place among those of the same watched process.
        victim: What is killed.
        watched: Whose step decides the moment: `Victim.LOADER` or `Victim.DBT`.
        step: The step; of dbt `<model>:<part>`.
        turn: At which passing of the step since the watched process began to be watched for it, from 1.
        pause_ms: How long after the step; None: right there, the watched process being held until the kill.
    """

    number: int
    victim: Victim
    watched: Victim
    step: str
    turn: int
    pause_ms: float | None

    @property
    def is_around(self) -> bool:
        """Whether the step has no transaction, so that the kill does not count."""
        return self.step in AROUND


@dataclass(frozen=True)
class Count:
    """How many kills of each victim; two thirds of those of PostgreSQL are timed by the loader, the others by dbt, whose rounds take longer."""

    loader: int
    around: int
    dbt: int
    postgres: int
    postmaster: int
    backend: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.loader + self.around + self.dbt + self.postgres + self.postmaster + self.backend


SHORT = Count(loader=8, around=0, dbt=5, postgres=5, postmaster=1, backend=1)
LONG = Count(loader=60, around=9, dbt=60, postgres=60, postmaster=6, backend=10)


def make_plan(seed: int, count: Count, models: Sequence[Model]) -> dict[Victim, list[Kill]]:
    """The kills in their order, by the process whose steps they wait for. The same arguments make the same plan."""
    dice = random.Random(f"kills {seed}")
    of_postgres = [Victim.POSTGRES] * count.postgres + [Victim.POSTMASTER] * count.postmaster + [Victim.BACKEND] * count.backend
    dice.shuffle(of_postgres)
    most = 2 * (len(of_postgres) + 1) // 3
    by_loader = [*[(Victim.LOADER, True)] * count.loader, *[(Victim.LOADER, False)] * count.around, *[(victim, True) for victim in of_postgres[:most]]]
    by_dbt = [*[Victim.DBT] * count.dbt, *of_postgres[most:]]
    dice.shuffle(by_loader)
    dice.shuffle(by_dbt)
    loader = []
    for number, (victim, is_in_transaction) in enumerate(by_loader):
        steps = (REGISTERED if victim in POSTGRES else IN_TRANSACTION) if is_in_transaction else AROUND
        step = dice.choice(steps)
        pause_ms = None if not is_in_transaction or dice.random() < 0.5 else round(dice.uniform(0, 20), 1)
        loader.append(Kill(number, victim, Victim.LOADER, step.value, dice.randrange(1, 4), pause_ms))
    # Tables can be killed at their creation only once, so that comes first, a table a task in the order of the tasks.
    incremental = [model for model in models if model.is_incremental]
    created = [dice.choice([model for model in incremental if model.task == task]) for task in sorted({model.task for model in incremental})]
    created = created[: len(by_dbt) // 3]
    hits: list[tuple[Victim, Model, Part, float | None]] = [(victim, model, Part.CREATE, None) for victim, model in zip(by_dbt, created, strict=False)]
    others = []
    for victim in by_dbt[len(created) :]:
        model = dice.choice(models)
        others.append((victim, model, dice.choice(_parts(model, victim)), None if dice.random() < 0.5 else round(dice.uniform(0, 20), 1)))
    tasks = len({model.task for model in models})
    for start in range(0, len(others), tasks):  # in the order in which a run comes past them, so that not every kill waits for a run of its own
        hits += sorted(others[start : start + tasks], key=lambda hit: hit[1].task)
    dbt = [Kill(number, victim, Victim.DBT, f"{model.name}:{part}", 1, pause_ms) for number, (victim, model, part, pause_ms) in enumerate(hits)]
    return {Victim.LOADER: loader, Victim.DBT: dbt}


def _parts(model: Model, victim: Victim) -> list[Part]:
    """Where a model that exists can be hit; PostgreSQL only where it has written, which the parts before the first temporary table have not."""
    parts = [Part.COMPUTE, Part.WRITE, Part.LOG, Part.COMMIT]
    if model.is_incremental and victim is Victim.DBT:
        return [Part.COLLECT, *parts]
    return parts if model.is_incremental or victim is Victim.DBT else parts[1:]
