"""A run's STAC catalog as files, recorded as its other products are."""

from cdpipe.stages.stac import StacJob, describe_collection, describe_item
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.local import write_json
from cdpipe.workspace.records import hash_stored, read_record, withdraw_records, write_record


def stac_is_written(job: StacJob) -> bool:
    """Whether the catalog is there; ``verify`` also looks inside."""
    record = read_record(job.record)
    return record is not None and all((job.workspace.root / name).is_file() for name in record.objects)


def write_stac(job: StacJob) -> None:
    """Write a run's Items and its Collection, then record them; those of pairs that are no more in the run go."""
    collection = job.folder / "collection.json"
    paths = [collection, *(job.item_path(each) for each in job.pairs)]
    withdraw_records(job.record, job.workspace.root, [collection])
    for old in set((job.folder / "items").glob("*.json")) - set(paths):
        old.unlink()
    boxes, spans = [], []
    for each in job.pairs:
        item = describe_item(job, each)
        write_json(job.item_path(each), item)
        boxes += [item["bbox"]] if "bbox" in item else []
        spans.append((item["properties"]["start_datetime"], item["properties"]["end_datetime"]))
    write_json(collection, describe_collection(job, boxes, spans))
    crash_point("stac-unrecorded")
    write_record(job.record, job.workspace.root, hash_stored(paths))
