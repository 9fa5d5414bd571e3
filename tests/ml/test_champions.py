"""Who is champion: promoted, rolled back, decided by two at once, killed between the steps, and with files that are gone."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from skops.io import dumps

from include.settings import REPOSITORY, get_settings
from include.warehouse import Role, connect
from include.warehouse.connection import LOCK_TIMEOUT_S
from ml.lifecycle import promotion
from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.champions import GATE, ChampionError, Reign, champion_version, history, lock_champion, make_champion, predecessors
from ml.lifecycle.dataset import OUTCOME, NotEnoughData, load_dataset
from ml.lifecycle.gate import GateDecision
from ml.lifecycle.registry import Registry
from ml.lifecycle.report import TrainingReport
from ml.lifecycle.splitting import split_by_time
from ml.lifecycle.steps import LifecycleStep
from ml.lifecycle.training import fit
from ml.lifecycle.versions import MODEL_FILE, ModelCard, ModelUnusable, StoredVersion, enter_version, find_version, versions
from tests.ml.conftest import FIRST_DAY, SCHEMA, Pumps
from tests.support.killed import KILLED, killed_at

LIFECYCLE = ("ml.lifecycle.promotion", "ml.lifecycle.explain", "sklearn.ensemble", "skops.io", "tests.ml.conftest")
SETUP = "from ml.lifecycle import promotion, use_case as lifecycle\nfrom tests.ml.conftest import pump_leak\ncase = pump_leak({name!r})\n"


def die(pumps: Pumps, step: LifecycleStep, code: str) -> None:
    """Runs code about the use case `case` in a process that is killed at a step."""
    assert killed_at(step, SETUP.format(name=pumps.use_case.name) + code, imports=LIFECYCLE) == KILLED


def champion(pumps: Pumps) -> int | None:
    return champion_version(pumps.connection, pumps.use_case.name)


def reigns(pumps: Pumps) -> list[tuple[int, str, bool]]:
    """Version, who decided and whether it goes on, after checking that one reign follows the other without a gap."""
    found = history(pumps.connection, pumps.use_case.name)
    assert [reign.champion_until for reign in found[:-1]] == [reign.champion_from for reign in found[1:]]
    assert sum(reign.champion_until is None for reign in found) == bool(found)
    return [(reign.model_version, reign.decided_by, reign.champion_until is None) for reign in found]


def copies(pumps: Pumps, count: int) -> None:
    """Versions 2, 3 … as challengers: the file of version 1 under other numbers."""
    first = find_version(pumps.connection, pumps.use_case.name, 1)
    registry = Registry(first.use_case)
    for number in range(2, count + 1):
        file = first.file.with_name(f"copy-{number}.skops")
        file.write_bytes(first.file.read_bytes())
        assert int(registry._client.create_model_version(first.use_case, first.file.parent.as_uri()).version) == number
        enter_version(pumps.connection, StoredVersion(first.use_case, number, first.card, file, first.report, GateDecision(False, "a copy")))


@pytest.fixture
def staffed(pumps: Pumps) -> Pumps:
    """A plant with champion 1 by the gate, and versions 2 and 3 that are as good; MLflow, which is slow, has not heard of them."""
    pumps.fill(days=100)
    use_case, name = pumps.use_case, pumps.use_case.name
    with connect(Role.ML) as connection:
        dataset = load_dataset(connection, use_case.dataset)
        split = split_by_time(dataset.dates, gap=use_case.dataset.outcome.horizon)
        parts = [dataset.frame[part.rows(dataset.dates)] for part in split.parts]
        train, validation = ((part, part[OUTCOME].to_numpy(dtype=int)) for part in parts[:2])
        data = dumps(fit(use_case.training, *train, *validation).estimator)
        card = ModelCard("made up", SCHEMA, split.validation.last, split.test.first, hashlib.sha256(data).hexdigest())
        for number in (1, 2, 3):
            file = get_settings().home / "mlflow" / name / str(number) / MODEL_FILE
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
            enter_version(connection, StoredVersion(name, number, card, file, None, GateDecision(number == 1, "made up")))
        make_champion(connection, name, 1, instead_of=None, by=GATE, reason="made up")
    return pumps


@pytest.fixture
def trained(pumps: Pumps) -> Pumps:
    """The same by a training run, with MLflow."""
    pumps.fill(days=100)
    assert lifecycle.train(pumps.use_case).gate.passed
    copies(pumps, 3)
    return pumps


def scored_versions(pumps: Pumps) -> list[int]:
    found = pumps.connection.execute("select distinct model_version from predictions.device_failure where model_name = %s order by 1", [pumps.use_case.name])
    return [row[0] for row in found]


def reign(version: int, *, is_rollback: bool = False) -> Reign:
    return Reign("u", version, *(None, None), "x", "y", is_rollback)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ([], []),
        ([reign(1)], []),
        ([reign(1), reign(2), reign(3)], [2, 1]),
        ([reign(1), reign(2), reign(3), reign(2, is_rollback=True)], [1]),
        ([reign(1), reign(2), reign(3), reign(2, is_rollback=True), reign(1, is_rollback=True)], []),
        ([reign(1), reign(2), reign(3), reign(1, is_rollback=True)], []),
        ([reign(1), reign(2), reign(3), reign(2, is_rollback=True), reign(4)], [2, 1]),
        ([reign(1), reign(2), reign(1)], [2]),
    ],
)
def test_a_rollback_goes_back_one_champion_and_a_second_one_further(course: list[Reign], expected: list[int]) -> None:
    assert predecessors(course) == expected


def test_promoted_and_rolled_back_with_who_and_why(staffed: Pumps) -> None:
    name = staffed.use_case.name
    assert promotion.promote(staffed.use_case, 2, by="ann", reason="new sensors") == 1
    assert scored_versions(staffed) == [2], "it has scored before it became champion"
    assert promotion.promote(staffed.use_case, 3, by="bob", reason="newer still") == 2
    assert promotion.rollback(staffed.use_case, by="ann", reason="alerts of plant 2 are wrong") == (2, 3)
    assert promotion.rollback(staffed.use_case, by="ann", reason="these too") == (1, 2)
    assert reigns(staffed) == [(1, GATE, False), (2, "ann", False), (3, "bob", False), (2, "ann", False), (1, "ann", True)]
    assert [(line.version, line.state, line.is_usable) for line in promotion.list_versions(name)] == [
        (3, "former champion", True),
        (2, "former champion", True),
        (1, "champion", True),
    ]
    assert promotion.list_reigns(name)[0].reason == "these too"

    for wrong, act in {
        "no former champion to go back to": lambda: promotion.rollback(staffed.use_case, by="a", reason="b"),
        "is the champion of .* already": lambda: promotion.promote(staffed.use_case, 1, by="a", reason="b"),
        "has no version 9; versions are 3, 2, 1": lambda: promotion.promote(staffed.use_case, 9, by="a", reason="b"),
    }.items():
        with pytest.raises((ChampionError, ModelUnusable), match=wrong):
            act()
    promotion.promote(staffed.use_case, 3, by="bob", reason="mended")
    with pytest.raises(ChampionError, match=r"version 2 is no former champion .* \(1 can\)"):
        promotion.rollback(staffed.use_case, to=2, by="a", reason="b")


def test_a_champion_whose_file_is_gone_is_not_taken_back(staffed: Pumps) -> None:
    promotion.promote(staffed.use_case, 2, by="ann", reason="new")
    promotion.promote(staffed.use_case, 3, by="ann", reason="newer")
    before = reigns(staffed)
    file = find_version(staffed.connection, staffed.use_case.name, 2).file
    file.unlink()
    with pytest.raises(ModelUnusable, match=r"the file of .* version 2 is gone .* Version 3 stays champion; or name another: `--to 1`"):
        promotion.rollback(staffed.use_case, by="ann", reason="wrong")
    file.write_bytes(b"something else")
    with pytest.raises(ModelUnusable, match=r"is not the one that was registered .* Version 3 stays champion"):
        promotion.rollback(staffed.use_case, by="ann", reason="wrong")
    with pytest.raises(ModelUnusable, match="is not the one that was registered"):
        promotion.promote(staffed.use_case, 2, by="ann", reason="wrong")
    assert reigns(staffed) == before
    assert [line.is_usable for line in promotion.list_versions(staffed.use_case.name)] == [True, False, True]
    assert promotion.rollback(staffed.use_case, to=1, by="ann", reason="wrong") == (1, 3)


def test_a_version_that_cannot_score_does_not_become_champion(staffed: Pumps) -> None:
    staffed.execute("alter table features.feat_pump_daily drop column maker")
    before = reigns(staffed)
    with pytest.raises(ValueError, match="missing: maker"):
        promotion.promote(staffed.use_case, 2, by="ann", reason="new")
    assert reigns(staffed) == before


def at_once(*acts: Callable[[], object]) -> list[BaseException | None]:
    """Runs all at the same time, each in a thread of its own, and returns what each raised."""
    ready = threading.Barrier(len(acts))
    raised: list[BaseException | None] = [None] * len(acts)

    def run(position: int, act: Callable[[], object]) -> None:
        ready.wait()
        try:
            act()
        except BaseException as error:
            raised[position] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def change(pumps: Pumps, version: int, *, instead_of: int) -> None:
    with connect(Role.ML) as connection:
        make_champion(connection, pumps.use_case.name, version, instead_of=instead_of, by=f"p{version}", reason="at once")


def test_of_several_promotions_at_once_one_is_made_and_the_others_are_told(staffed: Pumps) -> None:
    for _ in range(5):
        before = champion(staffed)
        assert before is not None
        others = [version for version in (1, 2, 3) if version != before]
        raised = at_once(*[partial(change, staffed, version, instead_of=before) for version in others])
        (refused,) = [error for error in raised if error is not None]
        assert isinstance(refused, ChampionError)
        assert f"has changed meanwhile, from version {before} to version" in str(refused)
        assert champion(staffed) == others[raised.index(None)]
    reigns(staffed)


def test_of_two_rollbacks_at_once_only_one_is_made(staffed: Pumps) -> None:
    """Two people see the same wrong champion and take it back: the second must not put the good one aside."""
    promotion.promote(staffed.use_case, 2, by="ann", reason="new")
    promotion.promote(staffed.use_case, 3, by="ann", reason="newer")
    with connect(Role.ML) as holder:
        lock_champion(holder, staffed.use_case.name)  # so that both have seen champion 3 before either may change it
        acts = [partial(promotion.rollback, staffed.use_case, by=who, reason="wrong") for who in ("ann", "bob")]
        raised = at_once(*acts, lambda: let_go_when_two_wait(staffed.connection, holder))
    assert raised.pop() is None
    assert sorted(type(error).__name__ for error in raised) == ["ChampionError", "NoneType"]
    assert champion(staffed) == 2


def let_go_when_two_wait(connection: psycopg.Connection, holder: psycopg.Connection) -> None:
    """Ends the holder's transaction once two others wait for its lock; they give up by themselves after the lock timeout."""
    until_waiting(connection, 2)
    holder.rollback()


def until_waiting(connection: psycopg.Connection, count: int) -> None:
    """Returns once so many wait for an advisory lock."""
    until = time.monotonic() + LOCK_TIMEOUT_S
    while connection.execute("select count(*) from pg_locks where locktype = 'advisory' and not granted").fetchone() != (count,):
        assert time.monotonic() < until, "nobody waits for the lock"


def test_history_is_only_appended_to(staffed: Pumps) -> None:
    change(staffed, 2, instead_of=1)
    with connect(Role.ML) as connection:
        for statement in ("update ops.model_history set reason = 'better'", "delete from ops.model_history", "update ops.model_version set has_passed = true"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)
        for statement in (
            "update ops.model_history set champion_until = now() where champion_until is not null",
            "update ops.model_history set champion_until = null where champion_until is not null",
        ):
            with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="only appended to"), connection.transaction():
                connection.execute(statement)
        with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
            connection.execute(
                "insert into ops.model_history (use_case, model_version, champion_from, decided_by, reason) values (%s, 3, now(), 'x', 'a second champion')",
                [staffed.use_case.name],
            )
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="only appended to"):
        staffed.execute("update ops.model_history set reason = 'better'")  # not even its owner by mistake


def test_a_training_run_killed_between_its_steps_leaves_version_and_champion_or_neither(pumps: Pumps) -> None:
    pumps.fill(days=100)
    name = pumps.use_case.name
    before_commit = (LifecycleStep.TRAIN_AFTER_FILE, LifecycleStep.TRAIN_BEFORE_COMMIT, LifecycleStep.CHAMPION_BEFORE_COMMIT)
    for step in before_commit:
        die(pumps, step, "lifecycle.train(case)")
        assert (versions(pumps.connection, name), champion(pumps)) == ([], None), step
    die(pumps, LifecycleStep.CHAMPION_BEFORE_ALIAS, "lifecycle.train(case)")
    registry = Registry(name)
    version = champion(pumps)
    assert (version is not None, registry.alias()) == (True, None)
    report = lifecycle.train(pumps.use_case)
    assert (champion(pumps), registry.alias()) == (version, version), "the next run over the same data tells MLflow and trains nothing"
    assert report.model_version == version
    assert reigns(pumps) == [(version, GATE, True)]
    assert [stored.version for stored in versions(pumps.connection, name)] == [version] == [len(before_commit) + 1], (
        "what the killed runs left in MLflow counts nowhere"
    )


def test_a_promotion_killed_between_its_steps_is_made_or_not(staffed: Pumps) -> None:
    for step in (LifecycleStep.SCORE_BEFORE_COMMIT, LifecycleStep.CHAMPION_AFTER_CLOSING, LifecycleStep.CHAMPION_BEFORE_COMMIT):
        die(staffed, step, "promotion.promote(case, 2, by='ann', reason='new')")
        assert reigns(staffed) == [(1, GATE, True)], step
    promotion.promote(staffed.use_case, 2, by="ann", reason="new")
    die(staffed, LifecycleStep.CHAMPION_AFTER_CLOSING, "promotion.rollback(case, by='ann', reason='wrong')")
    assert reigns(staffed) == [(1, GATE, False), (2, "ann", True)]
    assert promotion.rollback(staffed.use_case, by="ann", reason="wrong") == (1, 2)
    assert reigns(staffed) == [(1, GATE, False), (2, "ann", False), (1, "ann", True)]


def test_the_gate_does_not_undo_what_somebody_decided_while_it_judged(trained: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    trained.fill(days=130, seed=9)
    judge = lifecycle.judge

    def judge_slowly(*arguments: object) -> object:
        findings = judge(*arguments)  # type: ignore[arg-type]
        change(trained, 3, instead_of=1)
        return findings | {"gate": GateDecision(True, "better than everything")}

    monkeypatch.setattr(lifecycle, "judge", judge_slowly)
    report = lifecycle.train(trained.use_case)
    assert not report.gate.passed
    assert "better than everything, but the champion has changed meanwhile, to version 3" in report.gate.reason
    assert champion(trained) == 3
    stored = find_version(trained.connection, trained.use_case.name, report.model_version)
    assert stored.gate == report.gate
    assert stored.report is not None
    assert TrainingReport.from_json(stored.report) == report


def test_after_a_rollback_the_same_data_does_not_bring_the_bad_champion_back(pumps: Pumps) -> None:
    pumps.fill(days=100)
    first = lifecycle.train(pumps.use_case)
    copies(pumps, 2)
    promotion.promote(pumps.use_case, 2, by="ann", reason="a try")
    promotion.promote(pumps.use_case, 1, by="ann", reason="not yet")
    promotion.rollback(pumps.use_case, by="bob", reason="version 1 is wrong")
    assert first.gate.passed
    assert lifecycle.train(pumps.use_case) == first
    assert champion(pumps) == 2


def test_a_champion_that_can_score_no_more_does_not_block(trained: Pumps) -> None:
    find_version(trained.connection, trained.use_case.name, 1).file.unlink()
    trained.fill(days=120, seed=4)
    with pytest.raises(ModelUnusable, match="make another version champion"):
        lifecycle.score(trained.use_case)
    report = lifecycle.train(trained.use_case)
    assert report.gate.passed
    assert "the champion can score no more: the file of" in report.gate.reason
    assert champion(trained) == report.model_version


def test_shadows_score_beside_the_champion_and_never_instead_of_it(staffed: Pumps, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ml.lifecycle.use_case")
    written = lifecycle.score(staffed.use_case)
    counts = staffed.connection.execute("select model_version, count(*) from predictions.device_failure group by 1 order by 1").fetchall()
    assert counts == [(1, written), (3, written)], "the newest version besides the champion, and no other"
    assert lifecycle.score(staffed.use_case) == 0
    assert "version 3 of" in caplog.text

    # A shadow that cannot score keeps nobody from the champion's predictions, and is named.
    newest = FIRST_DAY + timedelta(days=99)
    staffed.execute(f"update features.feat_pump_daily set wear = 9 where feature_date = '{newest}'")
    find_version(staffed.connection, staffed.use_case.name, 3).file.unlink()
    assert lifecycle.score(staffed.use_case) == 24
    assert "version 3 of" in caplog.records[-1].message
    assert "does not score in the shadow of the champion" in caplog.records[-1].message

    # Killed between champion and shadow: the champion's are there.
    staffed.execute(f"update features.feat_pump_daily set wear = 8 where feature_date = '{newest}'")
    die(staffed, LifecycleStep.SCORE_BEFORE_SHADOW, "lifecycle.score(case)")
    assert lifecycle.score(staffed.use_case) == 0


def test_no_error_of_a_shadow_reaches_the_champion(staffed: Pumps, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not even one that nobody has thought of, and not one that the server raises."""
    staffed.execute("alter table predictions.device_failure add constraint made_up check (model_version <> 3 or failure_probability < 0)")
    assert lifecycle.score(staffed.use_case) > 0
    assert "version 3 of" in caplog.text
    assert "CheckViolation" in caplog.text, "with where it happened"
    caplog.clear()
    load = StoredVersion.load

    def fail(version: StoredVersion) -> object:
        if version.version == 3:
            raise RuntimeError("nobody has thought of this")
        return load(version)

    monkeypatch.setattr(StoredVersion, "load", fail)
    staffed.execute("update features.feat_pump_daily set wear = 9 where device_id = 'pump_03'")
    assert lifecycle.score(staffed.use_case) > 0
    assert "nobody has thought of this" in caplog.text
    assert scored_versions(staffed) == [1]


def test_a_version_that_is_made_champion_at_this_moment_scores(staffed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_version(staffed.connection, staffed.use_case.name, 1)

    def train_first(connection: psycopg.Connection, use_case: str) -> int | None:
        if len(versions(staffed.connection, use_case)) == 3:
            enter_version(staffed.connection, StoredVersion(use_case, 4, first.card, first.file, None, GateDecision(True, "newer")))
            change(staffed, 4, instead_of=1)
        return champion_version(connection, use_case)

    monkeypatch.setattr(lifecycle, "champion_version", train_first)
    assert lifecycle.score_champion(staffed.use_case) > 0
    assert scored_versions(staffed) == [4]


@pytest.mark.parametrize("error", [ModuleNotFoundError("sklearn.moved"), AttributeError("gone"), KeyError("__class__"), TypeError("other arguments")], ids=repr)
def test_a_file_that_the_libraries_cannot_read_is_a_version_that_can_score_no_more(staffed: Pumps, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What another release of scikit-learn makes of a file: any error."""

    def fail(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr("skops.io.loads", fail)
    told = r"version 1 cannot be read by the libraries installed here .*: train again"
    with pytest.raises(ModelUnusable, match=told):
        lifecycle.score_champion(staffed.use_case)
    with connect(Role.ML) as connection:
        rival = lifecycle._rival(connection, staffed.use_case)
    assert (rival.version, rival.model) == (1, None), "training goes on"
    assert "can score no more" in rival.absent_because
    assert lifecycle.score_shadows(staffed.use_case) == 0


def test_a_version_that_cannot_be_explained_can_score_no_more(staffed: Pumps) -> None:
    """It is loaded, but is nothing that this release knows how to ask."""
    from sklearn.linear_model import LogisticRegression

    data = dumps(LogisticRegression())
    stored = find_version(staffed.connection, staffed.use_case.name, 1)
    stored.file.write_bytes(data)
    card = replace(stored.card, model_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ModelUnusable, match="cannot be read by the libraries installed here"):
        replace(stored, card=card).load()


def test_two_versions_are_compared_on_days_that_neither_has_learned_from(trained: Pumps) -> None:
    trained.fill(days=140)
    second = lifecycle.train(trained.use_case)
    found = promotion.compare(trained.use_case, second.model_version, 1)
    assert found.first_date == second.parts[2].first, "the later of both"
    assert (found.first.version, found.second.version) == (second.model_version, 1)
    assert found.rows == second.parts[2].rows
    assert found.positives == second.parts[2].positives
    assert found.first.pr_auc == pytest.approx(second.pr_auc_model)
    assert found.difference.difference == pytest.approx(found.first.pr_auc - found.second.pr_auc)
    assert found.difference.low <= found.difference.difference <= found.difference.high
    assert found.entities == 24
    against_champion = promotion.compare(trained.use_case, 3 if champion(trained) != 3 else 2)
    assert against_champion.second.version == champion(trained)
    same = promotion.compare(trained.use_case, 2, 3)
    assert (same.difference.low, same.difference.high) == (0, 0)
    with pytest.raises(ChampionError, match="compared with itself"):
        promotion.compare(trained.use_case, 2, 2)
    trained.execute("delete from maintenance.fct_leak where occurred_at > timestamptz '2026-03-01'")
    with pytest.raises(NotEnoughData, match=r"cannot be compared: of \d+ rows since .* 0 are positive"):
        promotion.compare(trained.use_case, 2, 3)


def test_versions_of_an_older_release_are_adopted_with_their_champion(pumps: Pumps) -> None:
    """Before ops.model_version MLflow was the authority: card in a tag, champion in an alias."""
    pumps.fill(days=100)
    name = pumps.use_case.name
    lifecycle.train(pumps.use_case)
    registry, stored = Registry(name), find_version(pumps.connection, name, 1)
    registry._client.set_model_version_tag(name, "1", "tidemark.card", json.dumps(stored.card.to_dict()))
    pumps.execute("truncate ops.model_version, ops.model_history cascade")
    assert champion(pumps) is None
    assert lifecycle.score(pumps.use_case) > 0, "the first scoring after the upgrade finds the champion"
    assert champion(pumps) == 1

    pumps.execute("truncate ops.model_version, ops.model_history cascade")
    pumps.fill(days=101)
    report = lifecycle.train(pumps.use_case)
    adopted = find_version(pumps.connection, name, 1)
    assert (adopted.card, adopted.file, adopted.gate) == (stored.card, stored.file, stored.gate)
    assert report.champion is not None
    assert report.champion.version == 1, "the new one had to beat the old champion"
    first = history(pumps.connection, name)[0]
    assert (first.model_version, first.reason) == (1, "was champion before this history began")


def test_scoring_does_without_mlflow(staffed: Pumps) -> None:
    code = (
        "import sys\nsys.modules['mlflow'] = None\n"
        + SETUP.format(name=staffed.use_case.name)
        + "print(lifecycle.score(case))\nassert sys.modules['mlflow'] is None"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
