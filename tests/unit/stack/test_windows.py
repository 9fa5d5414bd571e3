"""Which arrivals a landing run is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pendulum
import pytest

from include.stack.windows import arrival_window, moment, utc

END = datetime(2026, 1, 10, 12, 5, tzinfo=UTC)
NOTHING = {"arrived_from": None, "arrived_before": None}


def test_a_scheduled_run_looks_back_from_the_end_of_its_interval() -> None:
    window = arrival_window(NOTHING, END, lookback_hours=48)
    assert (window.start, window.end) == (END - timedelta(hours=48), END)


def test_a_run_without_an_interval_leaves_the_window_to_the_loader() -> None:
    window = arrival_window(NOTHING, None, lookback_hours=48)
    assert (window.start, window.end) == (None, None)


def test_parameters_win_over_the_interval() -> None:
    window = arrival_window({"arrived_from": "2025-01-01T00:00:00Z", "arrived_before": "2025-02-01T00:00:00+01:00"}, END, lookback_hours=48)
    assert (window.start, window.end) == (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 31, 23, tzinfo=UTC))


def test_a_start_alone_reaches_to_the_end_of_the_interval() -> None:
    assert arrival_window({"arrived_from": "2026-01-01", "arrived_before": None}, END, lookback_hours=48).end == END


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be after"):
        arrival_window({"arrived_from": "2026-02-01", "arrived_before": "2026-01-01"}, END, lookback_hours=48)


def test_a_parameter_that_is_no_moment_is_named() -> None:
    with pytest.raises(ValueError, match="arrived_from must be a moment"):
        arrival_window({"arrived_from": "yesterday"}, END, lookback_hours=48)


def test_a_moment_without_a_zone_is_utc() -> None:
    assert moment("2026-01-31T10:00", "x") == datetime(2026, 1, 31, 10, tzinfo=UTC)


def test_what_airflow_hands_over_becomes_plain() -> None:
    given = pendulum.datetime(2026, 1, 31, 10, 0, 0, 123456, tz="Europe/Berlin")
    plain = utc(given)
    assert type(plain) is datetime
    assert plain == given
    assert type(plain - plain) is timedelta
