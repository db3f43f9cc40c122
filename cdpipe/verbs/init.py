"""``cdpipe init``: a commented configuration and a catalog to fill in."""

import argparse
import sys
from pathlib import Path

from cdpipe.errors import EXIT_DONE, ConfigError
from cdpipe.pairs.catalog import COLUMNS
from cdpipe.workspace.local import write_atomically

TEMPLATE = """\
# cdpipe configuration; relative paths are relative to this file.
name: {name}
catalog: pairs.csv            # pair_id, before, after; where given: label, split, dates, sensors, valid rasters
workspace: ./work             # everything cdpipe makes

sensors:                      # what the bands of your files mean; the catalog names the sensor if there are several
  my_sensor:
    bands: {{red: 1, green: 2, blue: 3}}      # 1-based band numbers
    # nodata: 0               # default: the file's own tag

# label: {{changed: [1], unchanged: [0], ignore: []}}       # values of your label rasters
# align: {{resampling: bilinear, min_overlap: 0.1}}         # for a second date on another grid

train:
  models:
    unetplusplus: {{encoder: resnext50_32x4d}}              # on the grey difference
    siamese_seresnext50: {{}}                               # on colour pairs
  patch: 256
  global_batch: 8
  epochs: 150
  learning_rate: 1.0e-4

predict: {{overlap: 0.25, tta: d4, threshold: auto}}
"""


def run(options: argparse.Namespace) -> int:
    """Write ``cdpipe.yaml`` and ``pairs.csv``.

    Raises:
        ConfigError: If one of them exists already.
    """
    folder: Path = options.folder
    config, catalog = folder / "cdpipe.yaml", folder / "pairs.csv"
    for path in (config, catalog):
        if path.exists():
            raise ConfigError(f"{path} exists already; cdpipe init never overwrites")
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in folder.resolve().name)
    write_atomically(config, TEMPLATE.format(name=name.strip("-") or "change").encode())
    wanted = [column for column in COLUMNS if column not in ("composite", "sensor")]
    write_atomically(catalog, (",".join(wanted) + "\n").encode())
    sys.stdout.write(f"wrote {config}\nwrote {catalog}\n")
    return EXIT_DONE
