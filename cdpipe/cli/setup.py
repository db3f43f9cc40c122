"""``cdpipe init``, ``catalog``, ``config`` and ``import-weights``: what a project begins with."""

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from cdpipe.cli.verb import Verb, add_config, local_path
from cdpipe.errors import EXIT_DONE, ConfigError
from cdpipe.pairs.layouts import LAYOUTS
from cdpipe.pairs.layouts.search import NO_LABEL, FoundPairs

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
# Suffixes that mean another format when the catalog is read.
NO_CSV = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".parquet", ".pq")
SHOWN = 8  # names of one kind


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=local_path, nargs="?", default=Path())


def _add_catalog(parser: argparse.ArgumentParser) -> None:
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for layout in LAYOUTS.values():
        one = layouts.add_parser(layout.name, help=layout.text, description=layout.text)
        one.add_argument("folder", type=local_path, metavar="DIR", help="where the files are")
        for option in layout.options:
            kind = local_path if option.is_path else str
            name = f"--{option.name.replace('_', '-')}"
            one.add_argument(name, type=kind, required=option.required, metavar=option.metavar, help=option.text)
        one.add_argument(
            "--out", type=local_path, default=Path("pairs.csv"), help="catalog to write (default: %(default)s)"
        )
        one.add_argument("--force", action="store_true", help="overwrite the catalog")
        one.add_argument("--config", type=local_path, metavar="FILE", help="also write a configuration to start with")


def _add_show(parser: argparse.ArgumentParser) -> None:
    add_config(parser, optional=True)
    parser.add_argument("--preset", metavar="NAME", help="a named recipe; without any argument they are listed")
    parser.add_argument(
        "--from", dest="source", type=local_path, metavar="JSON", help="configuration of the original program"
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=local_path, help="a state dict (.pth, .pt, .safetensors), alone or under state_dict"
    )
    parser.add_argument("--model", required=True, help="architecture, such as siamese_dpn92 or unetplusplus")
    parser.add_argument("--out", type=local_path, required=True, help="model folder to write; its name is the model's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="the network's options, as encoder=resnet34"
    )
    # by default as the original program trained
    parser.add_argument("--patch", type=int, default=256, help="patch it was trained with (default: %(default)s)")
    parser.add_argument("--statistics", choices=("per_date", "common"), default="per_date", help="default: %(default)s")
    parser.add_argument("--bands", choices=("together", "each"), default="together", help="default: %(default)s")
    parser.add_argument("--method", choices=("moments", "robust"), default="moments", help="default: %(default)s")
    parser.add_argument("--clip", default="auto", help="normalisation.clip of the configuration (default: %(default)s)")


def run_init(options: argparse.Namespace) -> int:
    """Write ``cdpipe.yaml`` and ``pairs.csv``.

    Raises:
        ConfigError: If one of them exists already.
    """
    from cdpipe.pairs.table import COLUMNS
    from cdpipe.workspace.location import here

    folder: Path = options.folder
    config, catalog = folder / "cdpipe.yaml", folder / "pairs.csv"
    for path in (config, catalog):
        if path.exists():
            raise ConfigError(f"{path} exists already; cdpipe init never overwrites")
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in folder.resolve().name)
    here(config).write(TEMPLATE.format(name=name.strip("-") or "change").encode())
    wanted = [column for column in COLUMNS if column not in ("composite", "sensor")]
    here(catalog).write((",".join(wanted) + "\n").encode())
    sys.stdout.write(f"wrote {config}\nwrote {catalog}\n")
    return EXIT_DONE


def run_catalog(options: argparse.Namespace) -> int:
    """Find pairs, write their table and, on request, a configuration, and print what was found.

    Raises:
        ConfigError: If a file to write exists already, or options contradict each other.
        InputError: If nothing is found.
    """
    from cdpipe.pairs.layouts.sensors import name_sensors
    from cdpipe.pairs.layouts.write import format_catalog, format_config
    from cdpipe.workspace.location import here

    out: Path = options.out
    config: Path | None = options.config
    if out.suffix.lower() in NO_CSV:
        raise ConfigError(f"--out: expected a name for CSV, which is what is written, got {out}")
    if out.exists() and not options.force:
        raise ConfigError(f"{out} exists already; --force overwrites it, --out names another file")
    if config is not None and config.exists():
        raise ConfigError(f"{config} exists already and is never overwritten; --config names another file")
    layout = LAYOUTS[options.layout]
    told = {option.name: getattr(options, option.name) for option in layout.options}
    found = layout.search(options.folder, out, **told)
    if config is not None:
        found = name_sensors(found)
    table = format_catalog(found.pairs, out.parent)
    starter = None if config is None else format_config(found, options.folder.resolve().name, out, config)
    _report(found, options.folder)
    here(out).write(table.encode())
    _say(f"wrote {out}")
    if config is not None and starter is not None:
        here(config).write(starter.encode())
        _say(f"wrote {config}; look at its sensors and label values")
        _say(f"next: cdpipe check {shlex.quote(str(config))}")
    else:
        _say(f"next: set catalog: {out} in your configuration (--config FILE writes one), then cdpipe check FILE")
    return EXIT_DONE


def _report(found: FoundPairs, folder: Path) -> None:
    splits = Counter(pair.split or "without split" for pair in found.pairs)
    told = ", ".join(f"{count} {split}" for split, count in sorted(splits.items()))
    labelled = sum(pair.label is not None for pair in found.pairs)
    _say(f"found {len(found.pairs)} pair(s) in {folder}: {told}; {labelled} with a label")
    for reason, names in found.notes.items():
        if reason != NO_LABEL or labelled:  # where none has a label, the line above says so
            shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            _say(f"  {reason} ({len(names)}): {shown}")
    for hint in found.hints:
        _say(hint)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def run_config(options: argparse.Namespace) -> int:
    """Print YAML that can be saved and run.

    Raises:
        ConfigError: If not exactly one source is given, or it is not understood.
    """
    from cdpipe.config.load import load_config, parse_config, to_yaml
    from cdpipe.config.presets import KANOPUS, KANOPUS_BANDS, PRESETS
    from cdpipe.workspace.location import here

    given = [options.config, options.preset, options.source]
    if sum(each is not None for each in given) != 1:
        raise ConfigError(f"config: expected a file, --from JSON or --preset NAME, one of {', '.join(PRESETS)}")
    if options.config is not None:
        text = to_yaml(load_config(options.config, options.set), here(Path()))
    elif options.preset is not None:
        if options.preset not in PRESETS:
            raise ConfigError(f"config --preset: expected one of {', '.join(PRESETS)}, got {options.preset!r}")
        values = {
            "name": "change",
            "catalog": "pairs.csv",
            "workspace": "./work",
            "sensors": {KANOPUS: {"bands": KANOPUS_BANDS}},
            "preset": options.preset,
        }
        text = to_yaml(parse_config(values, Path.cwd(), options.set), here(Path.cwd()))
    else:
        text = _converted(options.source, options.set)
    sys.stdout.write(text)
    return EXIT_DONE


def _converted(path: Path, overrides: list[str]) -> str:
    from cdpipe.config.load import parse_config, to_yaml
    from cdpipe.config.original import convert
    from cdpipe.workspace.location import here

    values, remarks = convert(path)
    config = parse_config(values, Path.cwd(), overrides, str(path))
    comments = [f"# from {path.name}", *(f"# {remark}" for remark in remarks)]
    return "\n".join([*comments, to_yaml(config, here(Path.cwd()))])


def run_import_weights(options: argparse.Namespace) -> int:
    """Import a file and say what was loaded, replaced and found beside it.

    Raises:
        ConfigError: If ``--set`` names what no model has.
    """
    from pydantic import ValidationError

    from cdpipe.config.load import describe_mistakes, parse_overrides
    from cdpipe.config.schema import Normalisation
    from cdpipe.config.train import Model
    from cdpipe.models.foreign import import_weights

    try:
        model = Model.model_validate(parse_overrides(options.set))
    except ValidationError as error:
        raise ConfigError("\n".join(["import-weights --set:", *describe_mistakes(error, Model)])) from None
    given = {name: getattr(options, name) for name in ("statistics", "bands", "method", "clip")}
    try:
        normalisation = Normalisation.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(["import-weights:", *describe_mistakes(error, Normalisation)])) from None
    found = import_weights(options.file, options.out.resolve(), options.model, model, (normalisation, options.patch))
    sys.stdout.write("\n".join(_describe(options, found)) + "\n")
    return EXIT_DONE


def _describe(options: argparse.Namespace, found: Any) -> list[str]:
    lines = [f"{options.file}: {found.loaded} entries loaded into {found.card.architecture}, none left over"]
    if found.beside:
        lines.append("  beside them: " + ", ".join(f"{name} {value:g}" for name, value in found.beside.items()))
    if found.card.fresh:
        lines.append(
            f"  replaced by a fresh layer of one class: {', '.join(found.card.fresh)}; train it before predicting:"
        )
        lines.append(f"    train: {{models: {{{found.card.architecture}: {{init_from: {options.out}}}}}}}")
    else:
        lines.append(f"  ready to predict: predict: {{models: [{options.out}]}}")
        kind = f"{found.card.statistics} statistics, bands {'together' if found.card.together else 'each'}"
        if found.card.method != "moments" or found.card.clip is not None:
            kind += f", method {found.card.method}, clip {found.card.clip or 'none'}"
        lines.append(f"  input as it was trained with: patch {found.card.patch}, {kind} (see --help if it was not)")
    lines.append(f"wrote {options.out}")
    return lines


INIT = Verb("init", "write a commented configuration and an empty catalog", _add_init, run_init, None)
CATALOG = Verb("catalog", "build the catalog from folders of a known layout", _add_catalog, run_catalog)
CONFIG = Verb(
    "config", "print a whole configuration: of a file, a preset, or the original's JSON", _add_show, run_config, None
)
IMPORT_WEIGHTS = Verb(
    "import-weights", "weights that others trained, as a model folder", _add_import, run_import_weights, None
)
