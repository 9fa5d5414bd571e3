"""Days until the next failure: what the interval holds, and what the naive answers are worth."""

from __future__ import annotations

from dataclasses import replace

from ml.lifecycle.dataset import Dataset
from ml.lifecycle.judging import Rival
from ml.lifecycle.quantile_judging import judge_quantiles, lives
from ml.lifecycle.quantiles import QuantileTraining, fit_quantiles
from ml.lifecycle.search import search_folds
from ml.lifecycle.splitting import split_by_time
from ml.lifecycle.use_case import UseCase
from tests.evaluate.question import table


def life_section(title: str, use_case: UseCase, dataset: Dataset, slice_by: tuple[str, ...] = ("model_name",)) -> list[str]:
    """The Markdown of a question about days, judged as the lifecycle judges it, without a champion.

    Raises:
        NotEnoughData: If the history is too short for three parts with the horizon between them.
    """
    use_case = replace(use_case, slice_by=slice_by)
    config, outcome = use_case.training, use_case.dataset.outcome
    assert isinstance(config, QuantileTraining)
    split = split_by_time(dataset.dates, gap=outcome.horizon, shares=config.shares)
    rows = {part.name: part.rows(dataset.dates) for part in split.parts}
    train, validation, test = (dataset.frame[rows[part.name]] for part in split.parts)
    outcomes = lives(dataset.spec, train), lives(dataset.spec, validation)
    folds = search_folds(dataset.spec, train, config.folds)
    model = fit_quantiles(config, train, outcomes[0], validation, outcomes[1], ceiling=outcome.horizon_days, folds=folds)
    found = judge_quantiles(use_case, dataset, split, rows, model, Rival(None, None, "there is no champion"))
    skill, entities = found["difference"], lives(dataset.spec, test).entity_count
    own = (f"{found['loss_model']:.3f}", f"{found['coverage']:.1%}", f"{found['interval_score_model']:.1f}")
    figures = [[f"**{model.candidate}**", f"{model.validation_loss[model.candidate]:.3f}", *own]]
    figures += [
        [f"rule: {rule.name}", f"{rule.loss_validation:.3f}", f"{rule.loss_test:.3f}", f"{rule.coverage:.1%}", f"{rule.interval_score:.1f}"]
        for rule in found["baselines"]
    ]
    return [
        f"### {title}",
        "",
        f"Days until the next failure, of at most {outcome.horizon_days:g}. Trained on {split.train.first} to {split.train.last}, candidates compared in "
        "time-ordered folds of it, conformalised "
        f"on {split.validation.first} to {split.validation.last}, judged once on {split.test.first} to {split.test.last}: "
        f"{len(test):,} rows of {entities} machines. Between the parts lie {split.gap.days} days. "
        f"{found['censored_rows']:,} rows are of machines that left before their outcome showed.",
        "",
        *table(("answer", "pinball loss validation, d", "pinball loss test, d", f"coverage of {found['nominal']:.0%}", "interval score, d"), figures),
        f"The model saves {skill.difference:.1%} of the loss of the best rule on validation ({found['baseline_name']}), 95 % interval {skill.low:.1%} to "
        f"{skill.high:.1%}. Its interval holds {found['coverage']:.1%} of the outcomes ({found['coverage_low']:.1%} to {found['coverage_high']:.1%}), and of "
        f"those that came within {outcome.horizon_days:g} days {found['coverage_of_events']:.1%} ({found['coverage_of_events_low']:.1%} to "
        f"{found['coverage_of_events_high']:.1%}). It is {found['width_days']:.1f} days wide; conformalising added {found['widening_days']:+.1f} on either "
        f"side where the median lies below {outcome.horizon_days:g} days, {found['widening_at_ceiling_days']:+.1f} elsewhere. Its median is "
        f"{found['median_error_model']:.1f} days off, that of the rule {found['median_error_baseline']:.1f}.",
        "",
        *table(
            ("slice", "rows", "loss model, d", "loss rule, d", "coverage"),
            (
                [f"{piece.dimension} = {piece.value}", f"{piece.rows:,}", f"{piece.loss_model:.3f}", f"{piece.loss_baseline:.3f}", f"{piece.coverage:.1%}"]
                for piece in found["slices"]
            ),
        ),
        f"Where it loses: {'; '.join(found['loses_on']) or 'nowhere that these figures show'}.",
        "",
    ]
