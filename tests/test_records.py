"""Records: they say what is stored, and tell when it is no longer so."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdpipe.geo.tilings import block_keys
from cdpipe.workspace.location import here
from cdpipe.workspace.records import (
    GROUP_RECORD,
    Record,
    all_records,
    block_record,
    damaged_objects,
    hash_stored,
    missing_blocks,
    read_record,
    write_record,
)

KEYS = block_keys("p", (3000, 5000), 1024)


def store_objects(root: Path) -> list[Path]:
    files = [root / "store.zarr" / "a" / "c" / "0" / "0", root / "store.zarr" / "b" / "c" / "0" / "0"]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes([number]) * 1000)
    return files


def test_a_record_holds_the_hash_of_every_object_by_its_place_in_the_workspace(tmp_path: Path) -> None:
    files = store_objects(tmp_path)
    facts = {"count": 3, "sums": ["1/3", "2"], "nested": {"a": [1.5, None]}}
    path = tmp_path / "records" / "r.json"
    written = write_record(here(path), here(tmp_path), hash_stored(map(here, files)), facts)
    assert written == Record(
        {
            "store.zarr/a/c/0/0": hashlib.sha256(files[0].read_bytes()).hexdigest(),
            "store.zarr/b/c/0/0": hashlib.sha256(files[1].read_bytes()).hexdigest(),
        },
        facts,
    )
    assert read_record(here(path)) == written
    assert damaged_objects(written, here(tmp_path)) == []


def test_a_record_needs_no_facts(tmp_path: Path) -> None:
    write_record(here(tmp_path / "r.json"), here(tmp_path), {})
    assert read_record(here(tmp_path / "r.json")) == Record({}, {})


def test_a_workspace_may_move(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    record = write_record(here(old / "records" / "r.json"), here(old), hash_stored(map(here, store_objects(old))), {})
    old.rename(new)
    assert damaged_objects(record, here(new)) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "folder"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    files = store_objects(tmp_path)
    record = write_record(here(tmp_path / "r.json"), here(tmp_path), hash_stored(map(here, files)))
    data = bytearray(files[1].read_bytes())
    data[500] ^= 1
    if damage in ("remove", "folder"):
        files[1].unlink()
    if damage == "folder":
        files[1].mkdir()
    if damage in ("flip", "truncate", "empty"):
        files[1].write_bytes({"flip": bytes(data), "truncate": bytes(data[:-1]), "empty": b""}[damage])
    assert damaged_objects(record, here(tmp_path)) == ["store.zarr/b/c/0/0"]


def test_a_record_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(here(path), here(tmp_path), hash_stored(map(here, store_objects(tmp_path))), {"count": 3})
    data = path.read_bytes()
    for length in range(len(data) - 1):  # the last character is a line's end
        path.write_bytes(data[:length])
        assert read_record(here(path)) is None
    path.unlink()
    assert read_record(here(path)) is None
    assert read_record(here(path / "below" / "nothing.json")) is None


@given(data=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_no_bytes_make_reading_a_record_fail(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("r") / "r.json"
    path.write_bytes(data)
    assert read_record(here(path)) is None


@pytest.mark.parametrize(
    "value", [None, 5, "text", [], {}, {"objects": {}}, {"facts": {}}, {"objects": 1, "facts": {}}, {"objects": "ab"}]
)
def test_another_json_file_is_no_record(tmp_path: Path, value: object) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(value))
    assert read_record(here(path)) is None


@given(done=st.sets(st.sampled_from(KEYS)))
def test_missing_are_the_blocks_without_a_record(tmp_path_factory: pytest.TempPathFactory, done: set[object]) -> None:
    root = tmp_path_factory.mktemp("w")
    folder = root / "records"
    for key in KEYS:
        if key in done:
            write_record(block_record(here(folder), key), here(root), {})
    if done:
        write_record(here(folder / GROUP_RECORD), here(root), {})
        (folder / f"{block_record(here(folder), KEYS[0]).name}.77.partial").write_text("torn")
    assert missing_blocks(here(folder), KEYS) == [key for key in KEYS if key not in done]


def test_every_block_has_a_record_of_its_own() -> None:
    names = {block_record(here(Path("r")), key) for key in block_keys("p", (130, 130), 1)}
    assert len(names) == 130 * 130
    assert here(Path("r")) / GROUP_RECORD not in names


def test_all_records_come_in_order_with_damaged_ones_as_none(tmp_path: Path) -> None:
    for key in reversed(KEYS):
        write_record(block_record(here(tmp_path), key), here(tmp_path), {}, {"row": key.block_row})
    broken = block_record(here(tmp_path), KEYS[4])
    broken.local().write_text("{")
    (tmp_path / "0_0.json.12.partial").write_text("{}")
    found = dict(all_records(here(tmp_path)))
    assert list(found) == sorted(block_record(here(tmp_path), key) for key in KEYS)
    assert found[broken] is None
    assert [record.facts["row"] for record in found.values() if record] == [
        key.block_row for key in KEYS if key != KEYS[4]
    ]
    assert list(all_records(here(tmp_path / "nothing"))) == []


def test_a_record_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    files = store_objects(tmp_path)
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    write_record(here(paths[0]), here(tmp_path), hash_stored(map(here, files)), {"a": 1, "b": 2})
    write_record(here(paths[1]), here(tmp_path), hash_stored(map(here, reversed(files))), {"b": 2, "a": 1})
    assert paths[0].read_bytes() == paths[1].read_bytes()
