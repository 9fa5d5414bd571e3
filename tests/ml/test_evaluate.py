"""`make evaluate` in small: the public sample from its files to an answer, and an answer from rows whose truth is known."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from include.warehouse import Role, connect
from ml.lifecycle.dataset import Dataset, load_dataset
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.quantiles import QuantileBoostingCandidate
from ml.lifecycle.training import GradientBoostingCandidate, LogisticRegressionCandidate, TrainingConfig
from ml.usecases.device_failure_24h import DEVICE_FAILURE_24H
from ml.usecases.remaining_life import REMAINING_LIFE
from tests.conftest import Warehouse
from tests.evaluate import azure
from tests.evaluate.life import life_section
from tests.evaluate.question import answer, failures_of, families, out_of_time, section
from tests.ml.conftest import FIRST_DAY, SCHEMA, SPEC

CONFIG = TrainingConfig(schema=SCHEMA, candidates=(LogisticRegressionCandidate(), GradientBoostingCandidate(trees=30), GradientBoostingCandidate(trees=40)))
RULES = (Baseline("grease", "", "grease"), Baseline("age", "", "age_days"))


def pumps(days: int = 120, machines: int = 20, seed: int = 4) -> tuple[Dataset, dict[tuple[str, ...], list[datetime]]]:
    """Pumps whose wear stands high in the week before a leak."""
    random = np.random.default_rng(seed)
    rows, leaks = [], {}
    for machine in range(machines):
        at = sorted(random.choice(days, size=days // 20, replace=False).tolist())
        leaks["default", f"p{machine}"] = [datetime(2026, 1, 1, 9, tzinfo=UTC) + timedelta(days=int(day)) for day in at]
        for day in range(days - 7):
            outcome = any(day < leak <= day + 7 for leak in at)
            values = {"wear": 2.0 * outcome + 0.5 * random.normal(), "grease": random.normal(), "is_outdoors": True, "maker": f"m{machine % 2}"}
            key = {"tenant_id": "default", "device_id": f"p{machine}", "feature_date": FIRST_DAY + timedelta(days=day)}
            rows.append({**key, **values, "age_days": float(day), "site": "s", "outcome": int(outcome)})
    frame = pd.DataFrame(rows, dtype=object)
    return Dataset(SPEC, frame, datetime(2026, 5, 1, tzinfo=UTC), incomplete_rows=0), leaks


def test_an_answer_ranks_the_model_above_rules_that_know_nothing() -> None:
    dataset, leaks = pumps()
    result = answer("Leaks", dataset, CONFIG, RULES, leaks, ("maker",))
    assert list(families(CONFIG)) == ["logistic regression", "gradient boosting"]
    assert [ranking.name for ranking in result.rankings] == ["logistic regression", "gradient boosting", "rule: grease", "rule: age"]
    ranked = {ranking.name: ranking for ranking in result.rankings}
    assert result.difference.low > 0.2
    assert ranked[result.chosen].pr_auc.low > ranked[result.rule].pr_auc.high
    assert ranked[result.chosen].alerts.precision.low > ranked[result.rule].alerts.precision.value
    assert {ranking.alerts.alerts for ranking in result.rankings} == {ranked[result.chosen].alerts.alerts}, "the budget is the same for all"
    assert result.split.test.first > result.split.validation.last + timedelta(days=7)
    text = "\n".join(section(result))
    assert f"**{result.chosen}**" in text
    assert "| maker = m0 |" in text
    assert "nan" not in text


def test_an_answer_says_where_it_loses() -> None:
    dataset, leaks = pumps()
    told = dataset.frame.assign(oracle=dataset.frame["outcome"].astype(float))
    noise = replace(dataset, frame=told.assign(wear=np.random.default_rng(1).normal(size=len(told))))
    text = "\n".join(section(answer("Leaks", noise, CONFIG, (Baseline("oracle", "", "oracle"),), leaks, ("maker",))))
    lost = text[text.index("Where it loses:") :]
    assert "maker = m0" in lost
    assert "recall at the budget" in lost
    assert "precision at the budget" in lost


def test_predictions_out_of_time_learn_from_older_days_only() -> None:
    """Leaks follow wear in the first days and its opposite later: a model that had seen the later days would know."""
    dataset, _ = pumps()
    turned = dataset.frame.assign(
        wear=[wear if day < date(2026, 3, 1) else -wear for wear, day in zip(dataset.frame["wear"], dataset.frame["feature_date"], strict=True)]
    )
    honest = out_of_time(dataset, CONFIG, folds=3, first_share=0.5)
    fooled = out_of_time(replace(dataset, frame=turned), CONFIG, folds=1, first_share=0.5)
    assert min(honest["feature_date"]) > date(2026, 2, 20)
    for predicted, sign in ((honest, 1), (fooled, -1)):
        means = predicted.groupby("outcome")["probability"].mean()
        assert np.sign(means[1] - means[0]) == sign


def test_the_azure_sample_goes_from_its_files_to_an_answer(deployed: Warehouse, real_data: Path) -> None:
    counts = azure.land(real_data)
    assert counts == {
        "azure_pdm_machines": (100, 0),
        "azure_pdm_telemetry": (43_200, 0),
        "azure_pdm_errors": (3_919, 0),
        "azure_pdm_failures": (761, 0),
        "azure_pdm_maintenance": (3_286, 0),
    }
    rows, machines, with_readings = deployed.rows(
        "select count(*), count(distinct device_id), count(distinct device_id) filter (where reading_count_1d > 0) from features.feat_device_daily"
    )[0]
    assert (machines, with_readings) == (100, 20)
    assert rows == 100 * len(deployed.rows("select distinct feature_date from features.feat_device_daily")), "a machine has a row on every day"
    assert deployed.rows("select distinct component_code from features.feat_component_daily order by 1") == [(f"comp{number}",) for number in (1, 2, 3, 4)]
    # Machine 1 was given component 4 on 5 January at six, after it had failed; that was known at eighteen the same day.
    assert deployed.rows(
        "select feature_date::text, days_since_replacement, component_failure_count from features.feat_component_daily"
        " where device_id = 'azure_machine_1' and component_code = 'comp4' and feature_date between '2015-01-04' and '2015-01-06' order by 1"
    ) == [("2015-01-04", 172, 0), ("2015-01-05", 0, 1), ("2015-01-06", 1, 1)]
    with connect(Role.ML) as connection:
        dataset = load_dataset(connection, DEVICE_FAILURE_24H.dataset)
        failures = failures_of(connection, DEVICE_FAILURE_24H.dataset)
    assert sum(map(len, failures.values())) == 761
    config = replace(DEVICE_FAILURE_24H.training, candidates=(LogisticRegressionCandidate(inverse_regularisation=0.1),))
    result = answer("Failure", dataset, config, azure.RULES[DEVICE_FAILURE_24H.name], failures, ("model_name",))
    assert result.rows > 4_000
    assert result.difference.low > 0

    quick = replace(REMAINING_LIFE, training=replace(REMAINING_LIFE.training, candidates=(QuantileBoostingCandidate(trees=30, depth=3),)))
    with connect(Role.ML) as connection:
        text = "\n".join(life_section("Days until a machine fails", quick, load_dataset(connection, quick.dataset)))
    (coverage,) = re.findall(r"Its interval holds (\d+\.\d)% of the outcomes", text)
    assert float(coverage) > 80
    assert "lives since maintenance" in text
    assert "model_name = model3" in text
