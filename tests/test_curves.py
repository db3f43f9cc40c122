"""Training curves: every epoch once, as TensorBoard reads them, also after an interruption."""

import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from cdpipe.training.logs import add_epoch
from cdpipe.workspace.location import here


def events(folder: Path) -> list[Event]:
    """All events in the order of writing (TFRecord: length, its checksum, data, its checksum)."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Values by name and step, after what a restart purges is gone."""
    values: dict[str, dict[int, float]] = {}
    for event in events(folder):
        if event.session_log.status == 1:  # START: what came before, from this step on, counts no more
            values = {name: {s: v for s, v in row.items() if s < event.step} for name, row in values.items()}
        for value in event.summary.value:
            values.setdefault(value.tag, {})[event.step] = round(value.simple_value, 6)
    return values


def test_every_epoch_is_there_once(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "key"
    for epoch in range(3):
        add_epoch(here(folder), {"epoch": epoch, "loss": 1.0 / (epoch + 1), "val_iou": 0.25, "note": "no number"})
    time.sleep(1.1)  # names of files are in seconds
    add_epoch(here(folder), {"epoch": 2, "loss": 0.125, "val_iou": 0.5})  # killed before its third epoch counted
    assert scalars(folder) == {"loss": {0: 1.0, 1: 0.5, 2: 0.125}, "val_iou": {0: 0.25, 1: 0.25, 2: 0.5}}
