"""``cdpipe config``: print a whole configuration: of a file, of a preset, or of a JSON file of the original."""

import argparse
import sys
from pathlib import Path

from cdpipe.config.load import load_config, parse_config, to_yaml
from cdpipe.config.original import convert
from cdpipe.config.presets import PRESETS
from cdpipe.errors import EXIT_DONE, ConfigError

_PLACEHOLDERS = {
    "name": "change",
    "catalog": "pairs.csv",
    "workspace": "./work",
    "sensors": {"kanopus": {"bands": {"red": 1, "green": 2, "blue": 3, "nir": 4}}},
}


def run(options: argparse.Namespace) -> int:
    """Print YAML that can be saved and run.

    Raises:
        ConfigError: If not exactly one source is given, or it is not understood.
    """
    given = [options.config, options.preset, options.source]
    if sum(each is not None for each in given) != 1:
        raise ConfigError(f"config: expected a file, --from JSON or --preset NAME, one of {', '.join(PRESETS)}")
    if options.config is not None:
        text = to_yaml(load_config(options.config, options.set), Path())
    elif options.preset is not None:
        if options.preset not in PRESETS:
            raise ConfigError(f"config --preset: expected one of {', '.join(PRESETS)}, got {options.preset!r}")
        values = {**_PLACEHOLDERS, "preset": options.preset}
        text = to_yaml(parse_config(values, Path.cwd(), options.set), Path.cwd())
    else:
        text = _converted(options.source, options.set)
    sys.stdout.write(text)
    return EXIT_DONE


def _converted(path: Path, overrides: list[str]) -> str:
    values, remarks = convert(path)
    config = parse_config(values, Path.cwd(), overrides, str(path))
    comments = [f"# from {path.name}", *(f"# {remark}" for remark in remarks)]
    return "\n".join([*comments, to_yaml(config, Path.cwd())])
