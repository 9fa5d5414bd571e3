"""Formats, dialects and encodings on their whole way: landed, traced to their bytes, quarantined, exported and replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.contracts import mapping as mappings_module
from include.landing import land_pending, read_original
from include.landing.csv_files import csv_rows
from include.landing.export import export
from include.landing.quarantine import Filter, list_quarantined
from include.landing.replay import replay
from include.landing.source import Source
from tests.support.landing import assert_balanced, raw_rows
from tests.support.payloads import at, telemetry, zone

MAPPING = """
name: windows_export
stream: maintenance_log
version: 1.0.0
description: What a spreadsheet wrote.
csv: {delimiter: ';', encoding: windows-1252}
known_after: arrival
columns:
  log_id: {column: Nr}
  device_id: {column: Gerät}
  event_at: {column: Zeit, formats: ['%d.%m.%Y %H:%M'], time_zone: UTC}
  updated_at: {column: Zeit, formats: ['%d.%m.%Y %H:%M'], time_zone: UTC}
  maintenance_type: {constant: repair}
  notes: {column: Bemerkung}
"""


@pytest.fixture
def windows_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mapping that declares a dialect, in a folder of its own."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    path = folder / "windows_export.yaml"
    path.write_text(MAPPING, encoding="utf-8")
    monkeypatch.setattr(mappings_module, "MAPPINGS_FOLDER", folder)
    for cached in (mappings_module.mappings, mappings_module.load_mapping):
        cached.cache_clear()
    return path


@pytest.fixture(autouse=True)
def _mappings_of_the_house():
    yield
    for cached in (mappings_module.mappings, mappings_module.load_mapping):
        cached.cache_clear()


def land(stream: str):
    result = land_pending(stream, arrived_from=at(0), arrived_before=at(1))
    assert_balanced()
    return result


def test_a_spreadsheet_export_lands_in_its_declared_dialect(warehouse, windows_export):
    text = 'Nr;Gerät;Zeit;Bemerkung\n1;m1;01.03.2026 00:10;"Öl; nachgefüllt €"\n2;m2;gestern;Prüfung\n'
    file = zone().put("maintenance_log", text.encode("cp1252"), arrived_at=at(0, 1), source="s", ext="csv", mapping="windows_export")
    result = land("maintenance_log")
    assert (result.accepted, result.quarantined) == (1, 1)
    (row,) = raw_rows("maintenance_log")
    assert (row["notes"], row["event_at"]) == ("Öl; nachgefüllt €", at(0, 0, 10))
    assert read_original(file.address, 1) == '1;m1;01.03.2026 00:10;"Öl; nachgefüllt €"'.encode("cp1252")


def test_an_undeclared_dialect_is_refused_and_replayed_once_it_is_declared(warehouse, windows_export):
    windows_export.write_text(MAPPING.replace("csv: {delimiter: ';', encoding: windows-1252}\n", ""), encoding="utf-8")
    zone().put(
        "maintenance_log",
        "Nr;Gerät;Zeit;Bemerkung\n1;m1;01.03.2026 00:10;x\n".encode("cp1252"),
        arrived_at=at(0, 1),
        source="s",
        ext="csv",
        mapping="windows_export",
    )
    assert land("maintenance_log").quarantined == 1
    (row,) = list_quarantined(Filter(stream="maintenance_log"))
    assert row.codes == ["unreadable_file"]
    windows_export.write_text(MAPPING, encoding="utf-8")
    mappings_module.load_mapping.cache_clear()
    assert replay("maintenance_log", Filter(), by="test").accepted == 1


def test_rows_of_utf16_are_exported_as_a_file_that_can_be_read_again(warehouse, tmp_path):
    text = "deviceId,deviceType,timestamp,line_id\nm1,toaster,2026-03-01T00:00:00Z,Straße\nm2,machine_controller,2026-03-01T00:00:00Z,x\n"
    zone().put("device_telemetry", b"\xff\xfe" + text.encode("utf-16-le"), arrived_at=at(0, 1), source="s", ext="csv")
    assert land("device_telemetry").accepted == 1
    (written,) = export(Filter(stream="device_telemetry"), tmp_path / "out").files
    with written.path.open("rb") as stream:
        (rows,) = csv_rows(Source(0, stream, "csv", None))
    assert (rows.header, rows.records) == (["deviceId", "deviceType", "timestamp", "line_id"], [["m1", "toaster", "2026-03-01T00:00:00Z", "Straße"]])


def test_elements_of_an_array_are_replayed_from_the_quarantine_and_exported_as_lines(warehouse, tmp_path):
    rows = [telemetry("m1", at(0)), telemetry("m2", at(0), temperature=5000.0), telemetry("m3", at(0))]
    file = zone().put("device_telemetry", json.dumps(rows, indent=1).encode(), arrived_at=at(0, 1), source="s", ext="json")
    result = land("device_telemetry")
    assert (result.landed, result.accepted, result.quarantined) == (3, 2, 1)
    assert warehouse.value("select file_format from ops.file") == "json"
    assert json.loads(read_original(file.address, 3)) == rows[2]
    (row,) = list_quarantined(Filter(stream="device_telemetry"))
    assert (row.row_number, json.loads(row.original)) == (2, rows[1])
    (written,) = export(Filter(stream="device_telemetry"), tmp_path / "out").files
    assert [json.loads(line) for line in written.path.read_text().splitlines()] == [rows[1]]
    (warehouse.zone_dir / file.address).unlink()  # the quarantine has all that a replay needs
    assert replay("device_telemetry", Filter(), by="test").quarantined == 1
    assert list_quarantined(Filter(stream="device_telemetry"))[0].codes == ["out_of_range"]
