"""Paths, files and blocks in object storage: as on a disk, whatever the network does, and without credentials."""

import hashlib
import os
import pickle
import random
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from buckets import SECRET, Proxy
from hypothesis import example, given
from hypothesis import strategies as st
from rasters import utm_grid

from cdpipe.errors import ConfigError, IntegrityError, LockedError
from cdpipe.formats.gdal import gdal_name
from cdpipe.geo.grid import BlockKey, Window
from cdpipe.geo.tilings import block_keys, block_window
from cdpipe.pairs.plan import known_hashes, remember_hashes, stamp_before_hashing
from cdpipe.store.arrays import cell_window, open_array, read_window, write_block
from cdpipe.store.groups import LABEL_ARRAYS, create_group, is_described, metadata_files, pair_arrays
from cdpipe.workspace import clients, requests
from cdpipe.workspace.clients import redacted, take_requests
from cdpipe.workspace.files import json_bytes, read_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here, locate
from cdpipe.workspace.records import damaged_objects, hash_stored, missing_blocks, read_record, write_record
from cdpipe.workspace.remembered import forget_everything

GRID = utm_grid(700, 1100)
LAYERS = [*pair_arrays(("red", "green"), "uint16", "float32"), *LABEL_ARRAYS]
KEYS = block_keys("p", GRID.shape, 512)
FAULTS = {"500": 0.06, "503": 0.06, "reset": 0.06, "cut": 0.06, "lost": 0.06, "late": 0.02}


def store_layers(group: Location) -> dict[str, str]:
    """Make a group and write all of its blocks; SHA-256 of each of its files."""
    create_group(group, LAYERS, GRID, 512, {"title": "test"})
    for layer in LAYERS:
        for number, key in enumerate(KEYS):
            window = block_window(key, GRID.shape, 512)
            window = cell_window(window) if layer.cell > 1 else window
            lead = [len(layer.bands)] if layer.bands else []
            values = np.random.default_rng(number).integers(0, 200, (*lead, *window.shape)).astype(layer.dtype)
            write_block(group, layer.name, window, values)
    return {file.relative_to(group): file.sha256() for file, _ in group.walk()}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("s3://bucket/a/b.tif", "/vsis3/bucket/a/b.tif"),
        ("gs://bucket/a b.tif", "/vsigs/bucket/a b.tif"),
        ("az://container/ä.tif", "/vsiaz/container/ä.tif"),
        ("s3://bucket/a/../b.tif", "/vsis3/bucket/b.tif"),
    ],
)
def test_gdal_reads_every_store_by_its_own_reader(text: str, name: str) -> None:
    assert gdal_name(locate(text)) == name


def test_a_path_of_this_machine_stays_what_it_is(tmp_path: Path) -> None:
    assert locate("a/b.tif", here(tmp_path)) == here(tmp_path) / "a/b.tif" == here(tmp_path / "a/b.tif")
    assert locate("a/b.tif", here(tmp_path)).local() == tmp_path / "a/b.tif"
    assert locate("/x/y.tif", locate("s3://bucket/folder")).local() == Path("/x/y.tif")
    assert gdal_name(here(tmp_path)) == tmp_path


@given(st.lists(st.text("abcXYZ019._- é", min_size=1).filter(lambda part: part.strip(".") != ""), min_size=1))
@example(["..0"])
def test_locations_compute_as_paths_do(parts: list[str]) -> None:
    for text in ("s3://bucket/work", "/work", "work", "s3://bucket", "/"):
        root = locate(text)
        path = root.joinpath(*parts)
        assert str(path) == f"{text.rstrip('/')}/{'/'.join(parts)}"
        assert locate(str(path)) == path == pickle.loads(pickle.dumps(path))  # noqa: S301 (our own)
        assert path.relative_to(root) == "/".join(parts)
        assert path.is_relative_to(root)
        assert not root.is_relative_to(path)
        assert path.parent.joinpath(path.name) == path == root / "/".join(parts)
        assert path.with_name("other") == path.parent / "other"
        pure = PurePosixPath(*parts)
        assert (path.name, path.stem, path.suffix) == (pure.name, pure.stem, pure.suffix)
    assert sorted([here(Path("a-b")), here(Path("a/b"))]) == list(map(here, sorted([Path("a-b"), Path("a/b")])))


@pytest.mark.parametrize("text", ["s3://bucket/work", "/work"])
@pytest.mark.parametrize("name", ["/elsewhere", "s3://elsewhere/file"])
def test_what_lies_elsewhere_does_not_lie_beneath(text: str, name: str) -> None:
    with pytest.raises(ValueError, match="expected a relative name"):
        locate(text) / name
    assert str(locate(name, locate(text))) == name


@pytest.mark.parametrize(
    "text",
    [
        f"s3://key:{SECRET}@bucket/a.tif",
        f"s3://bucket/a.tif?X-Amz-Signature={SECRET}",
        f"https://user:{SECRET}@host/a.tif",
        f"https://host/a.tif?sig={SECRET}",
        "s3a://bucket/a.tif",
        "s3://bucket/../../a.tif",
        "s3://bucket/%2e%2e/a.tif",
        "s3:///a.tif",
    ],
)
def test_other_addresses_are_refused_and_secrets_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        locate(text)
    assert SECRET not in str(caught.value)


def test_no_system_call_takes_an_address_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path: Any = locate("s3://bucket/work/file")
    for act in (os.stat, open, Path, os.fspath, os.mkdir):
        with pytest.raises(TypeError):
            act(path)
    with pytest.raises(ConfigError, match="lies in object storage"):
        path.local()
    assert not list(tmp_path.iterdir())


def test_errors_of_a_store_hold_no_credentials(bucket: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        f"<Error><Code>InvalidAccessKeyId</Code><Message>No such key</Message><AWSAccessKeyId>{SECRET}</AWSAccessKeyId>"
    )
    text = redacted(f"error for url (http://u:{SECRET}@host/b?X-Amz-Credential={SECRET}&x=1) 403: {body}")
    assert SECRET not in text
    assert "InvalidAccessKeyId: No such key" in text
    monkeypatch.setattr(clients, "TRIES", 1)
    with pytest.raises(ConnectionError) as caught:
        list((locate("s3://there-is-no-such-bucket") / "x").walk())
    assert SECRET not in str(caught.value)
    assert "NoSuchBucket" in str(caught.value)
    assert SECRET not in repr(pickle.dumps(bucket))


def test_a_group_in_a_bucket_has_the_bytes_of_one_on_a_disk(bucket: Location, tmp_path: Path, proxy: Proxy) -> None:
    expected = store_layers(here(tmp_path / "group"))
    proxy.chance, proxy.faults = random.Random(7), FAULTS
    assert store_layers(bucket / "group") == expected
    assert sum(proxy.broken[kind] for kind in FAULTS) > 10
    assert is_described(bucket / "group", LAYERS, GRID)
    near = here(tmp_path / "group")
    assert [file.relative_to(bucket / "group") for file in metadata_files(bucket / "group")] == [
        file.relative_to(near) for file in metadata_files(near)
    ]


def test_any_window_reads_as_on_a_disk_whatever_the_network_does(
    bucket: Location, tmp_path: Path, proxy: Proxy
) -> None:
    for folder in (here(tmp_path), bucket):
        store_layers(folder / "group")
    proxy.chance, proxy.faults = random.Random(3), FAULTS
    chance = random.Random(1)
    for _ in range(12):
        row, col = chance.randrange(GRID.height), chance.randrange(GRID.width)
        window = Window(row, col, chance.randint(1, GRID.height - row), chance.randint(1, GRID.width - col))
        for name in ("before", "valid", "label"):
            near, far = (read_window(open_array(folder / "group", name), window) for folder in (here(tmp_path), bucket))
            assert near.tobytes() == far.tobytes()
    assert sum(proxy.broken[kind] for kind in FAULTS) > 5


def test_requests_are_counted_as_the_server_sees_them(bucket: Location, proxy: Proxy) -> None:
    store_layers(bucket / "group")
    forget_everything()
    proxy.seen.clear()
    take_requests()
    array = open_array(bucket / "group", "before")
    read_window(array, Window(0, 0, 512, 512))
    assert dict(proxy.seen) == take_requests() == {"GET": 3}  # description, index, chunks
    read_window(open_array(bucket / "group", "before"), Window(256, 256, 256, 256))
    assert dict(proxy.seen) == {"GET": 4}
    assert take_requests() == {"GET": 1}


def test_damage_in_a_bucket_is_an_error(bucket: Location) -> None:
    store_layers(bucket / "group")
    array = open_array(bucket / "group", "before")
    file = bucket / "group/before/c/0/0/1"
    window = Window(0, 512, 512, 512)
    read_window(array, window)
    data = file.read_bytes()
    file.write(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    with pytest.raises(IntegrityError, match="checksum"):
        read_window(array, window)
    file.unlink()
    forget_everything()
    with pytest.raises(IntegrityError, match="no s3://"):
        read_window(array, window)


def test_records_say_what_is_stored(bucket: Location) -> None:
    folder, stored = bucket / "work/records/pairs/p/k", bucket / "work/x"
    stored.write(b"content")
    assert missing_blocks(folder, KEYS) == KEYS
    record = write_record(folder / "0_1.json", bucket / "work", hash_stored([stored]), {"n": 1})
    assert read_record(folder / "0_1.json") == record
    assert missing_blocks(folder, KEYS) == [key for key in KEYS if key != BlockKey("p", 0, 1)]
    assert damaged_objects(record, bucket / "work") == []
    stored.write(b"Content")
    assert damaged_objects(record, bucket / "work") == ["x"]
    (bucket / "work").remove_tree()
    assert list(bucket.walk()) == []


def test_sources_are_known_by_their_etag_without_being_read(bucket: Location, proxy: Proxy) -> None:
    workspace, source = Workspace(bucket / "work"), bucket / "scene.tif"
    source.write(b"pixels")
    remember_hashes(workspace, {source: (source.sha256(), stamp_before_hashing(source))})
    forget_everything()
    proxy.seen.clear()
    assert known_hashes(workspace, [source]) == {source: hashlib.sha256(b"pixels").hexdigest()}
    assert dict(proxy.seen) == {"GET": 1, "HEAD": 1}  # the list of hashes, and what the store says of the scene
    source.write(b"Pixels")  # as long, and perhaps within the same second
    assert known_hashes(workspace, [source]) == {}


def test_of_two_that_write_a_manifest_one_learns_of_the_other(
    bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bucket / "runs/run/manifest.json"
    path.write_alone(json_bytes({"run": 1}))
    path.write_alone(json_bytes({"run": 2}))
    real = requests.write_if

    def late(*arguments: object, **options: object) -> object:
        path.write(b"{}")  # another run, between this one's look and its put
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(requests, "write_if", late)
    with pytest.raises(LockedError, match="another run"):
        path.write_alone(json_bytes({"run": 3}))
    assert read_json(path) == {}


def test_a_lost_answer_to_a_guarded_put_is_no_loss(bucket: Location, proxy: Proxy) -> None:
    path = bucket / "manifest.json"
    for number in range(8):
        proxy.chance, proxy.faults = random.Random(number), {"lost": 0.4}
        path.write_alone(json_bytes({"number": number}))
        proxy.faults = {}
        assert read_json(path) == {"number": number}
    assert proxy.broken["lost"] > 3
