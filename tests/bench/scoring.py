"""`make bench-scoring`: how many feature rows a second become probabilities with their reasons, and how long one row takes.

docs/benchmarks.md says how it is measured, and what the figures mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from include.settings import REPOSITORY, get_settings
from include.warehouse import Role, connect
from ml.lifecycle.champions import make_champion
from ml.lifecycle.gate import GateDecision
from ml.lifecycle.schema import FeatureKind
from ml.lifecycle.training import FittedModel, LogisticRegressionCandidate, fit
from ml.lifecycle.use_case import score
from ml.lifecycle.versions import MODEL_FILE, LoadedModel, ModelCard, StoredVersion, enter_version, find_version
from ml.usecases.device_failure import DEVICE_FAILURE
from tests.bench.files import p95_ms
from tests.bench.report import Figure, Report, Target, interleaved
from tests.bench.server import BenchmarkError, bench_server, scratch_folder

DATABASE = "bench_scoring"
SCHEMA = DEVICE_FAILURE.training.schema
SEED = 11
TRAIN_ROWS = 20_000
FIRST_DAY = date(2026, 1, 1)
BATCH_TARGET, SINGLE_TARGET_MS = 50_000, 20


def rows_of(count: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Feature rows as they come from the warehouse (Python objects, some not known) and an outcome that half of them decide."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(count, len(SCHEMA.features)))
    risk = numbers[:, ::2] @ random.normal(scale=0.5, size=numbers[:, ::2].shape[1]) + random.normal(size=count)
    missing = random.random(numbers.shape) < 0.03
    columns: dict[str, Any] = {}
    for position, feature in enumerate(SCHEMA.features):
        values: list[object] = numbers[:, position].tolist()
        if feature.kind is FeatureKind.CATEGORY:
            values = [f"M{int(4 * abs(number)) % 6}" for number in numbers[:, position]]
        elif feature.kind is FeatureKind.FLAG:
            values = (numbers[:, position] > 0).tolist()
        columns[feature.name] = pd.Series([None if lost else value for value, lost in zip(values, missing[:, position], strict=True)], dtype=object)
    return pd.DataFrame(columns), (risk > np.quantile(risk, 0.95)).astype(int)


def short_name(candidate: str) -> str:
    """A name for the table: `gradient_boosting_150_trees_of_depth_4`."""
    return re.sub(r"[^a-z0-9]+", "_", re.split(", learning|, at least", candidate)[0].lower().replace("c=", "c_")).strip("_")


def fit_all() -> dict[str, FittedModel]:
    """Every candidate of the use case, fitted and calibrated as training does."""
    train, validation = rows_of(TRAIN_ROWS, SEED), rows_of(TRAIN_ROWS // 4, SEED + 1)
    candidates = DEVICE_FAILURE.training.candidates
    return {candidate.name: fit(replace(DEVICE_FAILURE.training, candidates=(candidate,)), *train, *validation) for candidate in candidates}


def store(model: FittedModel, version: int) -> None:
    """Enters a model as a version, with its file, and makes it champion in place of the one before."""
    from skops.io import dumps

    data = dumps(model.estimator)
    file = get_settings().home / "mlflow" / DEVICE_FAILURE.name / str(version) / MODEL_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    card = ModelCard(f"bench {version}", SCHEMA, FIRST_DAY - timedelta(days=8), FIRST_DAY, hashlib.sha256(data).hexdigest())
    with connect(Role.ML) as connection:
        enter_version(connection, StoredVersion(DEVICE_FAILURE.name, version, card, file, None, GateDecision(True, "a benchmark")))
        make_champion(connection, DEVICE_FAILURE.name, version, instead_of=version - 1 or None, by="gate", reason="a benchmark")


def fill(count: int) -> None:
    """A feature table of machines and days in the warehouse that the settings name."""
    table, _ = rows_of(count, SEED + 2)
    types = {FeatureKind.NUMBER: "float8", FeatureKind.FLAG: "boolean", FeatureKind.CATEGORY: "text"}
    columns = ", ".join(f"{feature.name} {types[feature.kind]}" for feature in SCHEMA.features)
    with connect(Role.OWNER) as connection:
        connection.execute(f"create table features.feat_device_daily (tenant_id text, device_id text, feature_date date, {columns})".encode())
        connection.execute("create unique index on features.feat_device_daily (tenant_id, device_id, feature_date)")
        connection.execute("create index on features.feat_device_daily (tenant_id, feature_date)")
        connection.execute("grant select on features.feat_device_daily to tidemark_ml")
        # As if dbt had built it: versions follow its log.
        connection.execute("insert into ops.model_state (model, input, position, checksum, build_id) values ('features.feat_device_daily', 'touch', 0, '', '')")
        connection.execute("insert into ops.bucket_change (relation, bucket, build_id) values ('features.feat_device_daily', null, '')")
        with connection.cursor() as cursor, cursor.copy("copy features.feat_device_daily from stdin") as copy:
            for number, row in enumerate(table.itertuples(index=False, name=None)):
                copy.write_row(("default", f"machine_{number % 1000:04d}", FIRST_DAY + timedelta(days=number // 1000), *row))
    with connect(Role.OWNER, autocommit=True) as connection:
        connection.execute("vacuum (analyze) features.feat_device_daily")


def clear_predictions() -> None:
    """So that the next scoring reads and writes everything."""
    with connect(Role.OWNER, autocommit=True) as connection:
        connection.execute("truncate predictions.device_failure, ops.scoring_state")


def change_a_day(round_number: int) -> int:
    """Changes every row of the first day and says so in the log; returns how many there are."""
    first = SCHEMA.names_of(FeatureKind.NUMBER)[0]
    with connect(Role.OWNER) as connection:
        changed = connection.execute(
            f"update features.feat_device_daily set {first} = %s where feature_date = %s",
            (1000.0 + round_number, FIRST_DAY),
        ).rowcount
        bucket = json.dumps({"tenant_id": "default", "feature_date": FIRST_DAY.isoformat()})
        connection.execute("insert into ops.bucket_change (relation, bucket, build_id) values ('features.feat_device_daily', %s::jsonb, '')", (bucket,))
    return changed


def measure(report: Report, models: dict[str, FittedModel], count: int, singles: int, repeats: int) -> None:
    """Batches and single rows with loaded models, every candidate once a round."""
    loaded = {name: LoadedModel(DEVICE_FAILURE.name, 1, ModelCard("", SCHEMA, FIRST_DAY, FIRST_DAY, ""), model.estimator) for name, model in models.items()}
    batch, _ = rows_of(count, SEED + 3)
    alone = [batch.iloc[[position]] for position in range(singles)]
    for model in loaded.values():
        model.scorer.score(batch[:1000])
    together: dict[str, list[float]] = {name: [] for name in loaded}
    one_by_one: dict[str, list[list[float]]] = {name: [] for name in loaded}
    for _, name in interleaved(list(loaded), repeats):
        started = time.perf_counter()
        scored = loaded[name].scorer.score(batch)
        together[name].append(time.perf_counter() - started)
        one_by_one[name].append([])
        for position, row in enumerate(alone):
            started = time.perf_counter()
            single = loaded[name].scorer.score(row)
            one_by_one[name][-1].append(time.perf_counter() - started)
            if single.probabilities[0] != scored.probabilities[position] or not np.array_equal(single.contributions[0], scored.contributions[position]):
                raise BenchmarkError(f"row {position} scores differently alone and in a batch, with {name}")
    linear = {candidate.name for candidate in DEVICE_FAILURE.training.candidates if isinstance(candidate, LogisticRegressionCandidate)}
    for name in loaded:
        short, seconds = short_name(name), tuple(together[name])
        every = [each for part in one_by_one[name] for each in part]
        report.figures.append(Figure(short, f"{name}: rows to probabilities and contributions", count, seconds))
        report.figures.append(
            Figure(f"{short}_single", "the same, one row at a time", singles, tuple(map(sum, one_by_one[name])), f"p95 {p95_ms(every):.1f} ms")
        )
        if name not in linear:
            rates = tuple(count / each for each in seconds)
            report.targets.append(Target(short, f"{name}: rows/s in batch", count / report.figures[-2].median_s, at_least=BATCH_TARGET, by_round=rates))
        rounds = tuple(map(p95_ms, one_by_one[name]))
        report.targets.append(Target(f"{short}_single", f"{name}: p95 of one row, ms", p95_ms(every), at_most=SINGLE_TARGET_MS, by_round=rounds))


def measure_whole(report: Report, models: dict[str, FittedModel], count: int, repeats: int) -> None:
    """What the DAG does: load the champion, read features, score, write back; and the same again when nothing has changed."""
    for version, model in enumerate(models.values(), start=1):
        store(model, version)
    champion = list(models)[-1]
    fill(count)
    loading, writing, again, days = [], [], [], []
    use_case = replace(DEVICE_FAILURE, shadows=0)
    for number in range(repeats):
        clear_predictions()
        started = time.perf_counter()
        with connect(Role.ML) as connection:
            _ = find_version(connection, DEVICE_FAILURE.name, len(models)).load().scorer
        loading.append(time.perf_counter() - started)
        for seconds in (writing, again, days):
            expected = count if seconds is writing else 0 if seconds is again else (a_day := change_a_day(number))
            started = time.perf_counter()
            if (written := score(use_case)) != expected:
                raise BenchmarkError(f"{written:,} predictions were written, {expected:,} expected")
            seconds.append(time.perf_counter() - started)
    report.figures.append(Figure("load", f"{champion}: card, file, hash, trusted types, made ready", 1, tuple(loading)))
    report.figures.append(Figure("whole", "the whole of it: champion loaded, features read, scored, written back with reasons", count, tuple(writing)))
    report.figures.append(Figure("whole_again", "the same when nothing has changed: nothing read, nothing written", count, tuple(again)))
    report.figures.append(Figure("one_day", "the same when one day has changed: that day read, scored, written back", a_day, tuple(days)))
    if "mlflow" in sys.modules:
        raise BenchmarkError("MLflow has been imported on the scoring path")


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Feature rows of a batch.")] = 100_000,
    singles: Annotated[int, typer.Option(min=20, help="Rows that are scored one by one in a round.")] = 300,
    whole: Annotated[int, typer.Option(min=1, help="Feature rows in the warehouse for the whole of it.")] = 50_000,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    work: Annotated[Path, typer.Option(help="Folder for the server's home and the JSON file.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/scoring.json when not given.")] = None,
) -> None:
    """Measures how fast models score.

    Example: python -m tests.bench.scoring --rows 20000 --repeats 2
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server goes too
    report = Report("scoring", {"rows": rows, "singles": singles, "whole": whole, "repeats": repeats})
    run, target = work / "run-scoring", output or work / "scoring.json"
    with scratch_folder(run), bench_server(run / "home") as server:
        server.fresh(DATABASE)
        os.environ["TIDEMARK_WAREHOUSE_URL"] = server.url(DATABASE)
        get_settings.cache_clear()
        report.facts |= {"server": server.facts(), "data": {"features": len(SCHEMA.features), "trained on": TRAIN_ROWS, "threads": 1}}
        report.show_facts()
        models = fit_all()
        measure(report, models, rows, singles, repeats)
        measure_whole(report, models, whole, repeats)
    report.finish(target)


if __name__ == "__main__":
    typer.run(main)
