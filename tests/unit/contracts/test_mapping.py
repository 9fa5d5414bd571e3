# ruff: noqa: E501 - a line a case reads best
"""Mappings: read strictly, applied to frames of texts."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from include.contracts import MappingError, load_contract
from include.contracts.mapping import POLARS_TYPES, MappingFault, apply_mapping, load_mapping, mappings, newest_time
from include.contracts.mapping_definition import Mapping, parse_mapping_text

BASE = """
name: trial
stream: maintenance_log
version: 1.0.0
description: Trial.
known_after: {value: 2, unit: h}
columns:
  log_id: {column: id}
  device_id: {column: machine}
  event_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}
  updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}
  maintenance_type: {constant: repair}
"""


def mapping(more: str = "", base: str = BASE) -> Mapping:
    return parse_mapping_text(base + more, "trial.yaml")


def source(rows: int = 1, **columns: list) -> pl.DataFrame:
    plain = {"id": [str(row) for row in range(rows)], "machine": ["m1"] * rows, "at": ["01/02/2024 12:00"] * rows}
    return pl.DataFrame(
        {
            name: pl.Series(values) if any(value is not None for value in values) else pl.Series(values, dtype=pl.String)
            for name, values in (plain | columns).items()
        }
    )


def only(result, name: str) -> list:
    return result.frame[name].to_list()


def test_frame_has_every_field_of_the_contract_typed_and_in_order():
    result = apply_mapping(mapping(), source(2))
    contract = load_contract("maintenance_log")
    assert result.frame.columns == [field.name for field in contract.fields]
    assert result.frame.dtypes == [POLARS_TYPES[field.logical_type] for field in contract.fields]
    assert only(result, "maintenance_type") == ["repair", "repair"]
    assert only(result, "cost_usd") == [None, None]
    assert result.errors == []
    assert result.known_after == timedelta(hours=2)
    assert result.extra.to_list() == [None, None]


def test_tenant_may_be_mapped_and_comes_first():
    result = apply_mapping(mapping("  tenant_id: {column: firm}\n"), source(1, firm=["acme"]))
    assert result.frame.columns[0] == "tenant_id"
    assert only(result, "tenant_id") == ["acme"]


def test_local_times_become_utc_and_times_that_are_no_instant_are_faults():
    times = [
        "01/02/2024 12:00",
        "01/07/2024 12:00",
        "31/03/2024 02:30",
        "27/10/2024 02:30",
        "30/02/2024 12:00",
        "01/02/2024 12:00:01",
        "2024-02-01 12:00",
        None,
    ]
    result = apply_mapping(mapping(), source(8, at=times))
    assert only(result, "event_at") == [datetime(2024, 2, 1, 11, tzinfo=UTC), datetime(2024, 7, 1, 10, tzinfo=UTC), *[None] * 6]
    # Skipped by the clock change, doubled by it, no day, not the format: not the row without a time, which the validator calls missing.
    assert [fault.row for fault in result.errors if fault.field == "event_at"] == [2, 3, 4, 5, 6]
    assert result.errors[0] == MappingFault(2, "unparsable", "event_at", "31/03/2024 02:30", "at must be a time of format %d/%m/%Y %H:%M")


@pytest.mark.parametrize(("side", "hour"), [("earlier", 0), ("later", 1)])
def test_a_doubled_local_time_is_what_the_mapping_says_and_leaves_a_trace(side, hour):
    base = BASE.replace("event_at: {column: at,", f"event_at: {{column: at, ambiguous: {side},")
    result = apply_mapping(mapping(base=base), source(3, at=["27/10/2024 02:30", "31/03/2024 02:30", "27/10/2024 04:30"]))
    assert only(result, "event_at") == [datetime(2024, 10, 27, hour, 30, tzinfo=UTC), None, datetime(2024, 10, 27, 3, 30, tzinfo=UTC)]
    # The skipped hour stays a fault, and so does the doubled one in a column that says nothing about it.
    assert [(fault.row, fault.field) for fault in result.errors] == [(0, "updated_at"), (1, "event_at"), (1, "updated_at")]
    assert result.extra.to_list() == ['{"event_at_ambiguous":"27/10/2024 02:30"}', None, None]


def test_a_publication_is_as_new_as_its_newest_time_that_can_be():
    base = BASE.replace("{value: 2, unit: h}", "publication\npublished: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}")
    edition, frame = mapping(base=base), source(4, at=["01/02/2024 12:00", "03/02/2024 12:00", "x", "01/01/2099 12:00"])
    assert edition.known_after is None
    assert newest_time(edition, frame, datetime(2024, 6, 1, tzinfo=UTC)) == datetime(2024, 2, 3, 11, tzinfo=UTC)
    assert newest_time(edition, frame[2:], datetime(2024, 6, 1, tzinfo=UTC)) is None
    with pytest.raises(MappingError, match="has no column at"):
        newest_time(edition, frame.drop("at"), datetime(2024, 6, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="does not say when its files were published"):
        newest_time(mapping(), frame, datetime(2024, 6, 1, tzinfo=UTC))


def test_several_formats_are_tried_and_offsets_count():
    base = BASE.replace(
        "updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}",
        "updated_at: {column: seen, formats: ['%Y-%m-%dT%H:%M:%S%z', '%d.%m.%Y %H:%M %z']}",
    )
    result = apply_mapping(mapping(base=base), source(2, seen=["2024-02-01T12:00:00+05:30", "01.02.2024 12:00 +0000"]))
    assert only(result, "updated_at") == [datetime(2024, 2, 1, 6, 30, tzinfo=UTC), datetime(2024, 2, 1, 12, tzinfo=UTC)]


def test_a_date_alone_is_its_midnight_in_the_zone():
    base = BASE.replace("formats: ['%d/%m/%Y %H:%M']", "formats: ['%m/%d/%Y']")
    assert only(apply_mapping(mapping(base=base), source(2, at=["3/1/2024", "12/31/2024"])), "event_at") == [
        datetime(2024, 2, 29, 23, tzinfo=UTC),
        datetime(2024, 12, 30, 23, tzinfo=UTC),
    ]


def test_money_is_read_with_sign_groups_and_blanks():
    texts = ["$333.80 ", " 1,234,567.89", "-$5", "5.00 $", "0", "12,34", "$", "€5", "1e400", "nan", "inf", None, "  "]
    result = apply_mapping(mapping("  cost_usd: {column: cost, money: '$', thousands: ','}\n"), source(13, cost=texts))
    assert only(result, "cost_usd") == [333.80, 1234567.89, -5.0, 5.0, 0.0, *[None] * 8]
    assert [fault.row for fault in result.errors] == [5, 6, 7, 8, 9, 10]
    assert result.errors[0] == MappingFault(5, "unparsable", "cost_usd", "12,34", "cost must be an amount of $")


def test_units_are_converted_without_binary_noise():
    result = apply_mapping(
        mapping("  downtime_min: {column: hours, factor: 60, offset: 1}\n  cost_usd: {column: kilo, factor: 1000}\n"),
        source(2, hours=["0.1", "x"], kilo=["2.01", "1e1"]),
    )
    assert only(result, "downtime_min") == [7.0, None]
    assert only(result, "cost_usd") == [2010.0, 10000.0], "2.01 * 1000 is 2009.9999999999998 in binary"
    assert [(fault.row, fault.value) for fault in result.errors] == [(1, "x")]


def test_code_tables_refuse_pass_or_drop_unknown_codes():
    texts = ["1", "2", "?", None]
    for unknown, expected, faults in (
        ("error", ["bearing", "belt", None, None], [2]),
        ("pass", ["bearing", "belt", "?", None], []),
        ("'null'", ["bearing", "belt", None, None], []),
    ):
        result = apply_mapping(mapping(f"  component_code: {{column: part, codes: {{'1': bearing, '2': belt}}, unknown: {unknown}}}\n"), source(4, part=texts))
        assert only(result, "component_code") == expected
        assert [fault.row for fault in result.errors] == faults
    assert apply_mapping(mapping("  component_code: {column: part, codes: {'1': bearing}}\n"), source(1, part=["9"])).errors == [
        MappingFault(0, "unparsable", "component_code", "9", "part must be one of 1")
    ]


def test_none_is_a_word_and_only_declared_tokens_are_null():
    texts = ["None", "n/a", "-", " ", ""]
    result = apply_mapping(mapping("  notes: {column: remark}\n"), source(5, remark=texts))
    assert only(result, "notes") == ["None", "n/a", "-", None, None]
    result = apply_mapping(
        mapping("  notes: {column: remark, null_tokens: ['-']}\nnull_tokens: ['n/a']\n"), source(5, remark=texts, other=["-", "n/a", "None", "", None])
    )
    assert only(result, "notes") == ["None", None, None, None, None]
    assert result.extra.to_list() == ['{"other":"-"}', None, '{"other":"None"}', None, None]


def test_keys_are_joined_or_hashed_from_parts():
    base = BASE.replace("{column: machine}", r"{concat: [press_, {column: machine, extract: '^[A-Z]+(\d+)$'}, -, {column: line}]}")
    result = apply_mapping(mapping(base=base), source(4, machine=["AB7", "7", None, "C8"], line=["x", "x", "x", None]))
    assert only(result, "device_id") == ["press_7-x", None, None, None]
    assert [(fault.row, fault.field, fault.value) for fault in result.errors] == [(1, "device_id", "7")]
    base = BASE.replace("{column: id}", "{hash: [h_, {column: a}, {column: b}]}")
    ids = only(apply_mapping(mapping(base=base), source(4, a=["1", "12", "1", None], b=["23", "3", "23", "x"])), "log_id")
    assert ids[0] == ids[2] != ids[1], "lengths stand before values, so 1+23 is not 12+3"
    assert ids[0] == "h_b195508a746e34457910108a31f086ff", "SHA-256 of 1:12:23; frozen, because stored identities rest on it"
    assert ids[3] is None


def test_left_over_columns_go_to_extra_unless_ignored():
    columns = {"é": ['a"b', None], "zone": ["3", " "], "secret": ["x", "y"], "flag": ["No", "Yes"]}
    result = apply_mapping(mapping("extra:\n  is_odd: {column: flag, codes: {'No': '0', 'Yes': '1'}}\nignore: [secret]\n"), source(2, **columns))
    assert [json.loads(text) for text in result.extra] == [{"is_odd": "0", "zone": "3", "é": 'a"b'}, {"is_odd": "1"}]
    assert result.extra.to_list()[0] == '{"is_odd":"0","zone":"3","é":"a\\"b"}', "canonical: sorted, no spaces, no escapes but what JSON needs"


def test_nul_in_extra_is_a_fault():
    assert apply_mapping(mapping(), source(2, more=["a\x00b", "c"])).errors == [
        MappingFault(0, "nul_character", "more", "a\x00b", "the character NUL cannot be stored")
    ]


def test_whole_numbers_and_words():
    base = """
name: trial
stream: customers
version: 1.0.0
description: Trial.
known_after: arrival
columns:
  customer_id: {column: id}
  event_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: UTC}
  birth_year: {column: age, factor: -1, offset: 2024}
  is_loyalty_member: {column: member, words: {'TRUE': true, 'FALSE': false}}
"""
    result = apply_mapping(mapping(base=base), source(5, age=["22", "22.0", "22.5", "x", None], member=["TRUE", "FALSE", "true", "", None]))
    assert only(result, "birth_year") == [2002, 2002, None, None, None]
    assert only(result, "is_loyalty_member") == [True, False, None, None, None]
    assert [(fault.row, fault.field) for fault in result.errors] == [(2, "birth_year"), (2, "is_loyalty_member"), (3, "birth_year")]
    assert result.known_after is None
    plain = apply_mapping(
        mapping(base=base.replace(", factor: -1, offset: 2024", "")), source(3, age=["9007199254740993", "9223372036854775808", "7.0"], member=[None] * 3)
    )
    assert only(plain, "birth_year") == [9007199254740993, None, 7], "exact beyond what a double holds"


def test_typed_columns_of_parquet_are_read_as_texts():
    result = apply_mapping(mapping("  cost_usd: {column: cost}\n"), source(2, cost=[1.5, None], made=[date(2024, 1, 2), None]))
    assert only(result, "cost_usd") == [1.5, None]
    assert result.extra.to_list() == ['{"made":"2024-01-02"}', None]


def test_no_rows_are_no_rows():
    base = BASE.replace("{column: machine}", "{hash: [{column: machine}]}")
    more = "  cost_usd: {column: c, money: '$'}\n  component_code: {column: c, codes: {'1': x}}\nextra: {k: {column: c}}\n"
    result = apply_mapping(mapping(more, base), pl.DataFrame(schema=dict.fromkeys(("id", "machine", "at", "c", "d"), pl.String)))
    assert (result.frame.height, len(result.extra), result.errors) == (0, 0, [])
    assert result.frame.dtypes == apply_mapping(mapping(), source(1)).frame.dtypes


def test_a_file_without_a_mapped_column_is_another_file():
    with pytest.raises(MappingError, match=r"trial\.yaml: file: has no column machine; it has id, at, device; correct the mapping or choose another"):
        apply_mapping(mapping(), source(1).select("id", "at", device="machine"))


def test_rows_do_not_depend_on_their_company():
    frame = source(4, at=["01/02/2024 12:00", "x", "01/07/2024 12:00", None], more=["a", None, "b", "c"])
    whole = apply_mapping(mapping(), frame)
    for row in range(4):
        alone = apply_mapping(mapping(), frame[row : row + 1])
        assert alone.frame.equals(whole.frame[row : row + 1])
        assert alone.extra.to_list() == whole.extra[row : row + 1].to_list()
        assert [(fault.field, fault.value) for fault in alone.errors] == [(fault.field, fault.value) for fault in whole.errors if fault.row == row]


def test_a_constant_time_and_an_age_become_instants():
    text = BASE.replace(
        "updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}", "updated_at: {constant: '2015-01-01T01:00:00+01:00'}"
    )
    begin = datetime(2015, 1, 1, tzinfo=UTC)
    assert only(apply_mapping(mapping(base=text), source(2)), "updated_at") == [begin, begin]
    text = BASE.replace(
        "updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}", "updated_at: {column: age, years_before: '2015-01-01T00:00:00Z'}"
    )
    result = apply_mapping(mapping(base=text), source(6, age=["0", "2.5", "1000", "-1", "old", None]))
    ages = [timedelta(0), timedelta(days=2.5 * 365.25), timedelta(days=365_250)]
    assert only(result, "updated_at") == [*(begin - age for age in ages), None, None, None]
    assert [(fault.row, fault.value) for fault in result.errors] == [(3, "-1"), (4, "old")]
    result = apply_mapping(mapping(base=text.replace("years_before", "days_after")), source(4, age=["0", "31", "-1", None]))
    assert only(result, "updated_at") == [begin, begin + timedelta(days=31), None, None]
    assert [(fault.row, fault.value) for fault in result.errors] == [(2, "-1")]


WRONG = {
    "unknown key": ("", "colour: red\n", "mapping: unknown key colour"),
    "unknown key of a column": ("", "  notes: {column: a, fromat: x}\n", "columns.notes: unknown key fromat"),
    "option of another type": ("", "  notes: {column: a, factor: 2}\n", "columns.notes: unknown key factor"),
    "unknown column": ("", "  note: {column: a}\n", "columns.note: is no column of stream maintenance_log"),
    "required field left out": ("  device_id: {column: machine}\n", "", "columns.device_id: is required by stream maintenance_log, but not mapped"),
    "no source": ("{column: machine}", "{null_tokens: []}", "columns.device_id: has no source; give exactly one of column, constant, concat, hash"),
    "two sources": ("{column: machine}", "{column: machine, constant: x}", "has column and constant"),
    "constant of another type": ("{constant: repair}", "{constant: 5}", "constant 5 is no string"),
    "constant outside the enum": ("{constant: repair}", "{constant: replace}", "'replace' is not allowed by the contract; use one of failure"),
    "code outside the enum": ("{constant: repair}", "{column: t, codes: {'1': replace}}", "'replace' is not allowed by the contract"),
    "bare codes": ("{constant: repair}", "{column: t, codes: {1: repair}}", "codes are not texts; quote"),
    "unknown without codes": ("{constant: repair}", "{column: t, unknown: pass}", "has no codes"),
    "unknown unknown": ("{constant: repair}", "{column: t, codes: {'1': repair}, unknown: guess}", "unknown is 'guess'"),
    "time without format": ("formats: ['%d/%m/%Y %H:%M'], ", "", "has no formats"),
    "time without zone": (", time_zone: Europe/Berlin", "", "has times without zone, or a zone twice"),
    "zone twice": ("%H:%M'], time_zone", "%H:%M %z'], time_zone", "has times without zone, or a zone twice"),
    "unknown zone": ("Europe/Berlin", "Europe/Atlantis", "time_zone 'Europe/Atlantis' is not known"),
    "constant time": ("updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}", "updated_at: {constant: '2024-01-01'}", "is no timestamp"),
    "age at no moment": (
        "updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}", "updated_at: {column: at, years_before: '2015'}",
        "columns.updated_at.years_before: '2015' is no timestamp with Z or an offset",
    ),
    "an age and a count of days": (
        "updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}",
        "updated_at: {column: at, days_after: '2015-01-01T00:00:00Z', years_before: '2015-01-01T00:00:00Z'}",
        "is an age and has days_after",
    ),
    "age with a format": ("updated_at: {column: at,", "updated_at: {column: at, years_before: '2015-01-01T00:00:00Z',", "is an age and has formats, time_zone"),
    "factor nought": ("", "  cost_usd: {column: c, factor: 0}\n", "is no conversion"),
    "sign that is a digit": ("", "  cost_usd: {column: c, thousands: '.'}\n", "is no sign"),
    "join without column": ("{column: machine}", "{concat: [a, b]}", "joins no column"),
    "join of a number": ("{column: machine}", "{concat: [1, {column: a}]}", "part 1 is no text"),
    "extract without group": ("{column: machine}", "{column: machine, extract: '[0-9]+'}", "has 0 groups"),
    "extract that is no expression": ("{column: machine}", "{column: machine, extract: '('}", "is no regular expression"),
    "column without name": ("{column: machine}", "{column: 5}", "column 5 is no name"),
    "bare null token": ("", "null_tokens: [0]\n", "null_tokens: is no list of texts"),
    "mapped and ignored": ("", "ignore: [machine]\n", "ignore: column machine is also mapped"),
    "no knowledge time": ("known_after: {value: 2, unit: h}\n", "", "known_after: is None; write arrival, publication, or {value: 1, unit: d}"),
    "knowledge before the event": ("value: 2", "value: -2", "known_after: is"),
    "publication without its time": ("{value: 2, unit: h}", "publication", "published: and known_after: publication do not stand together"),
    "time of a publication that counts for nothing": ("", "published: {column: at, formats: ['%Y'], time_zone: UTC}\n", "do not stand together"),
    "publication without column": ("{value: 2, unit: h}", "publication\npublished: {constant: x}", "published: is {'constant': 'x'}"),
    "unknown side of a doubled hour": ("updated_at: {column: at,", "updated_at: {column: at, ambiguous: both,", "ambiguous is 'both'; use one of refuse, earlier, later"),
    "side of a doubled hour without zone": (
        "updated_at: {column: at, formats: ['%d/%m/%Y %H:%M'], time_zone: Europe/Berlin}", "updated_at: {column: at, formats: ['%Y %z'], ambiguous: later}",
        "ambiguous is 'later'",
    ),
    "version": ("version: 1.0.0", "version: 1.0.0b", "is not MAJOR.MINOR.PATCH"),
    "version that is a number": ("version: 1.0.0", "version: 1.0", "version: is missing or no text"),
    "other name than the file": ("name: trial", "name: trail", "name the file <name>.yaml"),
    "columns that are a list": ("columns:\n", "columns: [a]\nextra:\n", "columns: is not a list of names"),
    "key twice": ("  device_id: {column: machine}\n", "  device_id: {column: machine}\n  device_id: {column: id}\n", "key 'device_id' is given twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_mapping_is_refused_with_file_place_and_remedy(case):
    before, after, message = WRONG[case]
    text = BASE.replace(before, after) if before else BASE + after
    assert text != BASE, "the case must change the mapping"
    with pytest.raises(MappingError) as caught:
        parse_mapping_text(text, "trial.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("trial.yaml: ")


def test_words_must_be_quoted_booleans():
    base = BASE.replace("maintenance_log", "customers")
    with pytest.raises(MappingError, match="has no words"):
        parse_mapping_text(
            base.replace("log_id: {column: id}", "is_loyalty_member: {column: id, words: {TRUE: true}}").replace("device_id", "customer_id"), "trial.yaml"
        )


def test_the_mappings_are_exactly_these():
    azure = ("azure_pdm_errors", "azure_pdm_failures", "azure_pdm_machines", "azure_pdm_maintenance", "azure_pdm_telemetry")
    assert mappings() == (
        *azure,
        "ecommerce_consumer_customers",
        "ecommerce_consumer_orders",
        "smart_manufacturing",
        "smart_manufacturing_blanks",
        "toronto_ferry",
    )
    assert {name: load_mapping(name).stream for name in mappings()} == {
        "azure_pdm_errors": "device_events",
        "azure_pdm_failures": "maintenance_log",
        "azure_pdm_machines": "device_registry",
        "azure_pdm_maintenance": "maintenance_log",
        "azure_pdm_telemetry": "device_telemetry",
        "ecommerce_consumer_customers": "customers",
        "ecommerce_consumer_orders": "orders",
        "smart_manufacturing": "device_telemetry",
        "smart_manufacturing_blanks": "device_telemetry",
        "toronto_ferry": "ticket_counts",
    }
    with pytest.raises(MappingError, match=r"no_such\.yaml: mapping: does not exist; use one of azure_pdm_errors"):
        load_mapping("no_such")


def test_every_column_of_the_ecommerce_file_is_used_once_kept_or_ignored():
    orders, customers = load_mapping("ecommerce_consumer_orders"), load_mapping("ecommerce_consumer_customers")
    assert set(customers.source_columns) - {"Customer_ID", "Time_of_Purchase"} <= set(orders.ignore), "what a person is like must not reach _extra of orders"
    assert set(orders.source_columns) - {"Customer_ID", "Time_of_Purchase"} <= set(customers.ignore)
