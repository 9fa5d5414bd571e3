"""What a landing zone promises, the same for a folder and for S3."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.landing.errors import ZoneError
from include.landing.object_store import open_store
from include.landing.zone import Zone
from include.settings import get_settings
from tests.conftest import set_environment
from tests.support.payloads import at


@pytest.fixture(params=["file", "s3"])
def zone(request: pytest.FixtureRequest, tmp_path: Path) -> Zone:
    """An empty zone."""
    return Zone((tmp_path / "zone").as_uri() if request.param == "file" else request.getfixturevalue("s3_url"))


def write(zone: Zone, address: str, data: bytes) -> None:
    """Puts bytes under an address as a foreign writer would, by the store's own means."""
    store, root = open_store(zone.url)
    store.makedirs(f"{root}/{address}".rpartition("/")[0], exist_ok=True)
    store.pipe_file(f"{root}/{address}", data)


class Entries(list):
    """What a folder holds, as `os.scandir` gives it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def listed(zone: Zone, arrived_from: datetime, arrived_before: datetime) -> tuple[int, int, int]:
    """Files of a span, and the listings that its store was asked for with the entries that they gave."""
    costs: list[int] = []

    def counting(call):
        def counted(*args, **kwargs):
            found = call(*args, **kwargs)
            costs.append(len(found))
            return found

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in ("ls", "find"):
            patch.setattr(zone._store.fs, name, counting(getattr(zone._store.fs, name)))
        patch.setattr(os, "scandir", counting(lambda path, scan=os.scandir: Entries(scan(path))))
        files = len(zone.list("orders", arrived_from, arrived_before))
    return files, len(costs), sum(costs)


def test_a_file_is_found_with_its_bytes_and_what_its_address_says(zone):
    put = zone.put("orders", b"\x00one\n", arrived_at=at(0, 1, 2), source="shop", ext="ndjson.gz", tenant="acme", mapping="m")
    assert put.address == "orders/dt=2026-03-01/hr=01/tenant=acme/mapping=m/010200000000-shop-0.ndjson.gz"
    assert (put.stream, put.tenant_id, put.mapping, put.file_format, put.compression) == ("orders", "acme", "m", "ndjson", "gzip")
    assert (put.arrived_at, put.size_bytes) == (at(0, 1, 2), 5)
    assert abs(datetime.now(UTC) - put.modified_at) < timedelta(minutes=5)
    (listed,) = zone.list("orders", at(0), at(1))
    assert (listed.address, listed.version_tag) == (put.address, put.version_tag)
    assert zone.find(put.address) == put
    assert zone.read(listed) == b"\x00one\n"
    assert zone.content_hash(listed) == hashlib.sha256(b"\x00one\n").digest()
    with zone.open(listed) as stream:
        assert (stream.seek(1), stream.read(3), stream.tell(), stream.read()) == (1, b"one", 4, b"\n")


def test_a_listing_is_of_the_hours_asked_for_in_order_of_arrival(zone):
    for hour in (23, 0, 25, 47, 48, 24 * 40):
        zone.put("orders", b"x", arrived_at=at(0, hour, 30), source="s", ext="ndjson")
    zone.put("customers", b"x", arrived_at=at(0, 23, 30), source="s", ext="ndjson")

    def hours(start, end):
        files = zone.list("orders", start, end)
        return [(file.arrived_at - at(0, 0, 30)) // timedelta(hours=1) for file in files]

    assert hours(None, None) == [0, 23, 25, 47, 48, 960]
    assert hours(at(0, 23, 30), at(0, 25, 30)) == [23]
    assert hours(at(0, 23, 30), at(0, 25, 31)) == [23, 25]
    assert hours(at(0, 23, 31), at(2, 0, 30)) == [25, 47]
    assert hours(at(0, 1), None) == [23, 25, 47, 48, 960]
    assert hours(None, at(1)) == [0, 23]
    assert hours(at(-400), at(400)) == [0, 23, 25, 47, 48, 960]
    assert hours(at(5), at(6)) == []
    assert zone.list("no_such_stream", at(0), at(1)) == zone.list("no_such_stream", None, None) == []


def test_what_nobody_needs_is_left_out_by_its_address_and_tag(zone):
    files = [zone.put("orders", b"x", arrived_at=at(day, 3), source="s", ext="ndjson") for day in range(4)]
    asked = []

    def is_settled(address, version_tag):
        asked.append(address)
        return (address, version_tag) in {(files[0].address, files[0].version_tag), (files[2].address, files[2].version_tag), (files[3].address, "other")}

    assert zone.list("orders", None, None, is_settled=is_settled) == [files[1], files[3]]
    assert asked == [file.address for file in files]  # day by day


def test_links_are_no_files_and_a_file_in_the_place_of_a_folder_holds_none(tmp_path):
    zone = Zone((tmp_path / "zone").as_uri())
    file = zone.put("orders", b"x", arrived_at=at(0), source="s", ext="csv")
    folder = (tmp_path / "zone" / file.address).parent
    (folder / "link.csv").symlink_to(tmp_path / "zone" / file.address)
    (folder.parent / "hr=01").write_bytes(b"x")
    assert zone.list("orders", at(0), at(0, 5)) == zone.list("orders", at(0), at(1)) == [file]


def test_what_a_listing_costs_follows_the_span_and_not_the_age_of_the_zone(zone):
    for hour in range(48):
        write(zone, f"orders/dt={at(0, hour):%Y-%m-%d/hr=%H}/{at(0, hour, 20):%H%M%S%f}-s-0.ndjson", b"x")
    young = listed(zone, at(0, 10, 5), at(1, 10, 5))
    for day in range(1, 31):
        write(zone, f"orders/dt={at(-day):%Y-%m-%d}/hr=05/050000000000-s-0.ndjson", b"x")
    files, requests, entries = old = listed(zone, at(0, 10, 5), at(1, 10, 5))
    assert old == young
    assert (files, requests, entries) == (24, 25, 25)  # the 25 hours that the span touches, one file in each
    files, requests, entries = listed(zone, at(0), at(1))
    assert files == 24
    assert (requests, entries) in ((1, 24), (25, 48))  # S3 lists a day at once, a folder has an entry for each hour


def test_new_bytes_under_an_old_address_have_a_new_version_tag(zone):
    first = zone.put("orders", b"one", arrived_at=at(0), name="000000000000-a-0.csv")
    second = zone.put("orders", b"two", arrived_at=at(0), name="000000000000-a-0.csv")
    assert first.address == second.address
    assert first.version_tag != second.version_tag
    (listed,) = zone.list("orders", at(0), at(1))
    assert listed.version_tag == second.version_tag
    assert zone.read(first) == b"two"


def _put_some(url: str, start: threading.Barrier) -> list[str]:
    zone = Zone(url)
    start.wait()
    return [zone.put("orders", f"{n}".encode(), arrived_at=at(0), source="s", ext="csv").address for n in range(5)]


def test_a_name_that_the_zone_makes_is_never_given_twice_even_to_writers_at_the_same_moment(zone):
    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        addresses = [address for put in pool.map(_put_some, [zone.url] * 4, [start] * 4) for address in put]
    assert len(set(addresses)) == 20
    assert sorted(zone.read(file) for file in zone.list("orders", at(0), at(1))) == sorted(f"{n}".encode() for n in range(5) for _ in range(4))


def test_a_large_file_is_copied_from_disk_and_read_in_pieces(zone, tmp_path):
    given = tmp_path / "given.csv"
    given.write_bytes(bytes(range(256)) * (1 << 16))
    file = zone.put("orders", given, arrived_at=at(0), source="s", ext="csv")
    assert file.size_bytes == 16 << 20
    assert zone.content_hash(file) == hashlib.sha256(given.read_bytes()).digest()
    assert [each.address for each in zone.list("orders", at(0), at(1))] == [file.address]  # no scratch file is left or shown


def test_a_new_file_is_on_disk_with_the_names_of_all_its_folders(tmp_path, monkeypatch):
    synced: list[Path] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()), sync(descriptor)))
    tmp_path.joinpath("zone").mkdir()
    stored = Zone((tmp_path / "zone").as_uri()).put("orders", b"{}", arrived_at=datetime(2026, 3, 1, 10, tzinfo=UTC), name="a.ndjson", tenant="shop_1")
    file = tmp_path / "zone" / stored.address
    assert synced[-1] == file.parent
    assert synced[-2].parent == file.parent
    assert {tmp_path / "zone" / folder for folder in (".", "orders", "orders/dt=2026-03-01", "orders/dt=2026-03-01/hr=10")} <= set(synced[:-2])


def test_what_is_not_complete_yet_or_not_in_an_hour_is_no_file_of_the_zone(zone):
    for name in (".hidden.csv", "_temporary.csv"):
        write(zone, f"orders/dt=2026-03-01/hr=00/{name}", b"x")
    for folder in ("", "dt=2026-03-01/", "dt=2026-03-01/hr=24/", "dt=2026-02-30/hr=00/", "x/hr=00/"):
        write(zone, f"orders/{folder}a.csv", b"x")
    assert zone.list("orders", None, None) == zone.list("orders", at(0), at(1)) == []
    assert zone.find("orders/dt=2026-03-01/hr=00") is None


ODD_NAMES = ["a b.csv", "ü€.ndjson", "x#y.csv", "p%20q.csv", "q[1]*.csv", "a+b&c=d.csv", "a'\".csv", "naïve?.csv", "no ending", "UPPER.NDJSON.GZ"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_somebody_else_chose_is_read_as_it_is(zone, name):
    write(zone, f"orders/dt=2026-03-01/hr=00/{name}", name.encode())
    write(zone, "orders/dt=2026-03-01/hr=00/other.csv", b"other")
    files = {file.address: file for file in zone.list("orders", at(0), at(1))}
    file = files[f"orders/dt=2026-03-01/hr=00/{name}"]
    assert len(files) == 2
    assert zone.read(file) == name.encode()
    assert zone.find(file.address) == file
    assert at(0) <= file.arrived_at < at(0, 1)  # its modification time, clamped into its hour


def test_a_name_in_upper_case_has_the_same_ending(zone):
    write(zone, "orders/dt=2026-03-01/hr=00/A.NDJSON.GZ", b"")
    (file,) = zone.list("orders", at(0), at(1))
    assert (file.file_format, file.compression) == ("ndjson", "gzip")


def test_a_file_that_vanished_is_none_or_not_found(zone):
    file = zone.put("orders", b"x", arrived_at=at(0), source="s", ext="csv")
    store, root = open_store(zone.url)
    store.rm_file(f"{root}/{file.address}")
    assert zone.find(file.address) is None
    assert zone.list("orders", at(0), at(1)) == []
    for call in (zone.read, zone.open, zone.content_hash):
        with pytest.raises(FileNotFoundError):
            call(file)


@pytest.mark.parametrize("unfit", [{"source": "a/b"}, {"tenant": "../x"}, {"mapping": ""}, {"name": ".hidden"}, {"name": "a?versionId=1"}])
def test_an_unfit_part_of_an_address_is_refused(zone, unfit):
    with pytest.raises(ZoneError, match="unfit"):
        zone.put("orders", b"x", arrived_at=at(0), **({"source": "s", "ext": "csv"} | unfit))
    with pytest.raises(ZoneError, match="time zone"):
        zone.put("orders", b"x", arrived_at=datetime(2026, 3, 1), source="s", ext="csv")
    assert zone.list("orders", None, None) == []


def test_a_store_that_fails_is_told_and_taken_neither_for_an_empty_zone_nor_for_a_broken_file(zone, monkeypatch):
    file = zone.put("orders", b"x", arrived_at=at(0), source="s", ext="csv")
    with zone.open(file) as stream:
        monkeypatch.setattr(stream._stream, "read", refuse)
        with pytest.raises(ZoneError, match=f"reading {zone.url} failed: .*run it again"):
            stream.read(1)
    for owner, name in ((zone._store.fs, "ls"), (zone._store.fs, "find"), (os, "scandir")):
        monkeypatch.setattr(owner, name, refuse)
    for span in ((at(0), at(1)), (None, None)):
        with pytest.raises(ZoneError, match=f"in {zone.url} failed"):
            zone.list("orders", *span)


def refuse(*args, **kwargs):
    raise OSError(5, "Input/output error")


# S3 alone


def test_a_bucket_that_does_not_exist_is_no_empty_zone(s3_url):
    zone = Zone("s3://nobody-made-this-bucket/landing")
    for span in ((at(0), at(1)), (None, None)):
        with pytest.raises(ZoneError, match="does not exist"):
            zone.list("orders", *span)
    with pytest.raises(ZoneError, match="does not exist"):
        zone.check()
    Zone(s3_url).check()


def test_marks_of_folders_are_no_files_and_keys_that_cannot_be_read_back_are_refused(s3_url):
    zone = Zone(s3_url)
    store, root = open_store(s3_url)
    bucket, prefix = root.split("/")
    hour = f"{prefix}/orders/dt=2026-03-01/hr=00"
    store.call_s3("put_object", Bucket=bucket, Key=f"{hour}/", Body=b"")
    assert zone.list("orders", at(0), at(1)) == []
    store.call_s3("put_object", Bucket=bucket, Key=f"{hour}/a?versionId=1.csv", Body=b"x")
    with pytest.raises(ZoneError, match="rename the object"):
        zone.list("orders", at(0), at(1))


def test_an_object_written_anew_while_it_is_read_breaks_the_reading_off(s3_url, tmp_path):
    zone = Zone(s3_url)
    given = tmp_path / "given.csv"
    given.write_bytes(b"a" * (20 << 20))
    file = zone.put("orders", given, arrived_at=at(0), name="large.csv")
    with zone.open(file) as stream:
        stream.read(1 << 20)
        zone.put("orders", b"b" * (20 << 20), arrived_at=at(0), name="large.csv")
        with pytest.raises(ZoneError, match="reading"):
            stream.read()


def test_keys_come_from_the_secrets_file_or_the_environment_and_stand_in_no_message(s3_url, s3_endpoint, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    set_environment(monkeypatch, TIDEMARK_HOME=str(tmp_path), TIDEMARK_LANDING_ENDPOINT=s3_endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ZoneError, match="AWS_ACCESS_KEY_ID") as told:
        Zone(s3_url).list("orders", at(0), at(1))
    (tmp_path / "secrets").write_text("AWS_ACCESS_KEY_ID=key-in-file\nAWS_SECRET_ACCESS_KEY=hidden-in-file\n")
    assert Zone(s3_url).list("orders", at(0), at(1)) == []
    Zone(s3_url).put("orders", b"x", arrived_at=at(0), source="s", ext="csv")
    with pytest.raises(ZoneError) as missing:
        Zone("s3://nobody-made-this-bucket/x").check()
    for text in (caplog.text, str(told.value), str(missing.value), repr(get_settings())):
        assert "hidden-in-file" not in text


@pytest.mark.parametrize("url", ["memory://zone", "s3://", "/srv/zone", "s3://key:hidden@bucket/zone", "https://example.invalid/zone", ""])
def test_a_zone_elsewhere_is_refused_without_repeating_credentials(url):
    with pytest.raises(ZoneError, match="TIDEMARK_LANDING_URL") as refused:
        Zone(url)
    assert "hidden" not in str(refused.value)
