"""docs/runbooks/bring-your-own-data.md, followed word by word with files that are made up here in the forms that it describes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from include.contracts import mapping as mappings_module
from include.settings import REPOSITORY
from ml import usecases
from ml.lifecycle.dataset import load_dataset
from ml.lifecycle.reread import UseCaseUnknown, find_use_case
from ml.lifecycle.schema import FeatureSchemaMismatch
from tests.conftest import Warehouse
from tests.integration.test_commands import run, run_json
from tests.support.runbooks import commands

PAGE = (REPOSITORY / "docs" / "runbooks" / "bring-your-own-data.md").read_text(encoding="utf-8")
UNITS, TESTED, JOBS = 60, 20, 3000


def files_of_the_page() -> dict[str, str]:
    """Path and text of every file that the page shows."""
    return dict(re.findall(r"^`(\S+\.(?:yaml|py))`\n\n```(?:yaml|python)\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, in folders beside those of the house; the working folder holds the data."""
    for path, text in files_of_the_page().items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    monkeypatch.setattr(mappings_module, "MAPPINGS_FOLDER", tmp_path / "include/contracts/mappings")
    monkeypatch.setattr(usecases, "__path__", [*usecases.__path__, str(tmp_path / "ml/usecases")])
    caches = (mappings_module.mappings, mappings_module.load_mapping)
    for cached in caches:
        cached.cache_clear()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    yield tmp_path / "data"
    for cached in caches:
        cached.cache_clear()
    for path in files_of_the_page():
        sys.modules.pop(f"ml.usecases.{Path(path).stem}", None)


def run_to_failure(random: np.random.Generator, units: int) -> list[np.ndarray]:
    """Engines: 26 columns; most sensors drift the more the nearer the end is, some never move."""
    made = []
    for unit in range(1, units + 1):
        life = int(random.integers(90, 220))
        cycle = np.arange(1, life + 1)
        wear = np.exp(-(life - cycle) / 30)[:, np.newaxis]
        slopes = np.where(np.arange(21) % 5 == 0, 0, 1 + np.arange(21) / 10)
        sensors = 500 + 10 * np.arange(21) + slopes * wear * 4 + random.normal(size=(life, 21))
        settings = random.normal(size=(life, 3)).round(4)
        made.append(np.column_stack([np.full(life, unit), cycle, settings, sensors.round(2)]))
    return made


def write(path: Path, rows: np.ndarray) -> None:
    """Blanks between the columns and two at the end of each line, as the public files have them."""
    lines = (f"{int(row[0])} {int(row[1])} " + " ".join(f"{value:.4f}" for value in row[2:]) + "  \n" for row in rows)
    path.write_text("".join(lines), encoding="ascii")


def test_from_files_of_blanks_to_an_interval_that_covers(deployed: Warehouse, placed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(17)
    write(placed / "train_FD001.txt", np.concatenate(run_to_failure(random, UNITS)))
    whole = run_to_failure(random, TESTED)
    kept = [int(random.integers(40, len(rows))) for rows in whole]
    write(placed / "test_FD001.txt", np.concatenate([rows[:length] for rows, length in zip(whole, kept, strict=True)]))
    lives = [len(rows) - length for rows, length in zip(whole, kept, strict=True)]
    (placed / "RUL_FD001.txt").write_text("".join(f"{life} \n" for life in lives), encoding="ascii")
    monkeypatch.setenv("COLUMNS", "250")

    words = commands("bring-your-own-data")
    first = next(number for number, line in enumerate(words) if line[0] == "sql")
    *landing, training, scoring, listing, comparison = words[: first + 1]
    for line in landing:
        run(*line)
    train_rows = sum(1 for _ in (placed / "train_FD001.txt").open())
    assert deployed.rows("select tenant_id, count(*) from raw.unit_readings group by 1 order by 1") == [
        ("turbofan_test", sum(kept)),
        ("turbofan_train", train_rows),
    ]
    assert deployed.value("select count(*) from ops.quarantine") == 0
    assert deployed.value("select count(*) from features.feat_unit_daily") == train_rows + sum(kept)
    assert deployed.rows("select stated_by, count(*) from maintenance.fct_unit_failure group by 1 order by 1") == [
        ("runs_to_failure", UNITS),
        ("unit_lives", TESTED),
    ]

    shown = run(*training)
    assert "Champion: better than the baseline" in shown
    assert "lives by cycle" in shown
    assert deployed.value("select trained_because from ops.model_version where use_case = 'turbofan_life'") == "asked for by hand"
    assert "turbofan_life is not monitored: its units know no common calendar" in run("model", "monitor", "turbofan_life", "--now")
    assert run_json("model", "monitor", "turbofan_life", "--now") == []
    written = run(*scoring)
    assert f"{sum(kept):,} predictions written to predictions.unit_life" in written
    assert "champion" in run(*listing)
    (judged,) = run_json(*comparison)
    assert judged["units"] == TESTED
    assert float(judged["coverage"]) >= 0.8
    assert float(judged["median_is_off_by"]) < 25
    assert float(judged["width"]) < 115
    reasons = deployed.value("select reasons from predictions.unit_life where tenant_id = 'turbofan_test' order by remaining_life_p50_d limit 1")
    assert reasons[0]["feature"].startswith("sensor_")  # type: ignore[index]
    learned = deployed.value("select count(*) from predictions.unit_life where tenant_id = 'turbofan_train'")
    assert learned == 0, "only the tenants under `scores` are scored"


def test_from_a_labelled_table_to_probabilities(deployed: Warehouse, placed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    header = (
        "UDI,Product ID,Type,Air temperature [K],Process temperature [K],Rotational speed [rpm],Torque [Nm],Tool wear [min],Machine failure,TWF,HDF,PWF,OSF,RNF"
    )
    lines, failed = [header], 0
    for number in range(1, JOBS + 1):
        kind, wear = random.choice(["L", "M", "H"]), random.integers(250)
        air, speed, torque = random.normal(300, 2), random.normal(1500, 150), random.normal(40, 10)
        fails = int(random.random() < 1 / (1 + np.exp(-(0.3 * (torque - 40) * (wear > 120) + 0.02 * (wear - 120) - 4))))
        failed += fails
        row = (number, f"{kind}{number}", kind, f"{air:.1f}", f"{air + 10:.1f}", int(speed), f"{torque:.1f}", wear, fails, fails, 0, 0, 0, 0)
        lines.append(",".join(map(str, row)))
    (placed / "ai4i2020.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "250")

    words = commands("bring-your-own-data")
    first = next(number for number, line in enumerate(words) if "milling_rows" in line)
    landing, building, training, scoring, comparison = words[first:]
    run(*landing)
    run(*building)
    assert deployed.value("select count(*) from maintenance.fct_unit_failure") == failed
    assert deployed.value("select count(*) from features.feat_unit_daily where unit_values ?| array['TWF', 'Product ID', 'Machine failure']") == 0
    shown = run(*training)
    assert "Champion: better than the baseline" in shown
    assert "tool wear" in shown
    run(*scoring)
    (judged,) = run_json(*comparison)
    assert judged["jobs"] == int(JOBS * 0.2), "the rows that nobody learned from"
    assert float(judged["promised"]) == pytest.approx(float(judged["failed"]), abs=0.04)

    # A file that names its use case otherwise is refused: it would take the place of the one of that name.
    case = find_use_case("milling_failure")
    misnamed = placed.parent / "ml/usecases/milling_again.py"
    misnamed.write_text("from ml.usecases.milling_failure import MILLING_FAILURE as AGAIN\n", encoding="utf-8")
    with pytest.raises(UseCaseUnknown, match=r"ml/usecases/milling_again\.py holds the use cases milling_failure: name one 'milling_again'"):
        find_use_case("milling_failure")
    misnamed.unlink()

    # A column that the table does not have is refused, with those there are.
    from dataclasses import replace

    from include.warehouse import Role, connect
    from ml.lifecycle.schema import Feature, FeatureSchema

    asked = replace(case.dataset, features=replace(case.dataset.features, schema=FeatureSchema((Feature("Speed"),))))
    with connect(Role.ML) as connection, pytest.raises(FeatureSchemaMismatch, match=r"lacks Speed; in unit_values of the population there is .*Torque \[Nm\]"):
        load_dataset(connection, asked)


def test_a_unit_of_a_hundred_thousand_cycles_counts_them_as_days(deployed: Warehouse, placed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 1990 on they would lie in the future and be quarantined; the page says from when on to count."""
    base = "1700-01-01T00:00:00Z"
    assert f"days_after: '{base}'" in PAGE
    mapping = (
        "name: long_lives\nstream: unit_readings\nversion: 1.0.0\ndescription: Cells by charge.\nnull_tokens: [NA, '?']\nknown_after: {value: 0, unit: d}\n"
        f"columns:\n  unit_id: {{column: cell}}\n  cycle: {{column: charge}}\n  event_at: {{column: charge, days_after: '{base}'}}\n"
        "  runs_to_failure: {constant: true}\n"
    )
    (mappings_module.MAPPINGS_FOLDER / "long_lives.yaml").write_text(mapping, encoding="utf-8")
    (placed / "cells.csv").write_text("cell,charge,volts\na,1,3.7\na,60000,NA\na,118000,3.1\n", encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "250")
    run("import", "cells.csv", "--mapping", "long_lives", "--tenant", "cells")
    assert deployed.value("select count(*) from ops.quarantine") == 0
    run("build", "feat_unit_daily fct_unit_failure")
    found = deployed.rows("select cycle, feature_date::text, unit_values -> 'volts' from features.feat_unit_daily where tenant_id = 'cells' order by cycle")
    assert found == [(1, "1700-01-02", 3.7), (60000, "1864-04-11", None), (118000, "2023-01-28", 3.1)]
    assert deployed.value("select occurred_at::text from maintenance.fct_unit_failure where tenant_id = 'cells'") == "2023-01-29 12:00:00+00"
