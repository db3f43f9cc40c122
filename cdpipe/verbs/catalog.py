"""``cdpipe catalog``: the table of pairs, made from folders as data sets and the original program lay them out."""

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from cdpipe.errors import EXIT_DONE, ConfigError
from cdpipe.pairs.layouts.folders import find_folders
from cdpipe.pairs.layouts.found import NO_LABEL, Found
from cdpipe.pairs.layouts.original import find_original
from cdpipe.pairs.layouts.oscd import find_oscd
from cdpipe.pairs.layouts.patterns import find_patterns
from cdpipe.pairs.layouts.write import format_catalog, format_config
from cdpipe.workspace.local import write_atomically

NO_CSV = (".xlsx", ".xls", ".parquet", ".pq")  # suffixes that mean another format when the catalog is read
SHOWN = 8  # names of one kind


def run(options: argparse.Namespace) -> int:
    """Find pairs, write their table and, on request, a configuration, and print what was found.

    Raises:
        ConfigError: If a file to write exists already, or options contradict each other.
        InputError: If nothing is found.
    """
    out: Path = options.out
    config: Path | None = options.config
    if out.suffix.lower() in NO_CSV:
        raise ConfigError(f"--out: expected a name for CSV, which is what is written, got {out}")
    if out.exists() and not options.force:
        raise ConfigError(f"{out} exists already; --force overwrites it, --out names another file")
    if config is not None and config.exists():
        raise ConfigError(f"{config} exists already and is never overwritten; --config names another file")
    found = _find(options)
    table = format_catalog(found.pairs, out.parent)
    starter = None if config is None else format_config(found, options.folder.resolve().name, out, config)
    _report(found, options.folder)
    write_atomically(out, table.encode())
    _say(f"wrote {out}")
    if config is not None and starter is not None:
        write_atomically(config, starter.encode())
        _say(f"wrote {config}; look at its sensors and label values")
        _say(f"next: cdpipe check {shlex.quote(str(config))}")
    else:
        _say(f"next: set catalog: {out} in your configuration (--config FILE writes one), then cdpipe check FILE")
    return EXIT_DONE


def _find(options: argparse.Namespace) -> Found:
    if options.layout == "original":
        return find_original(options.folder, options.match, _columns(options.columns))
    if options.layout == "oscd":
        return find_oscd(options.folder, options.out.with_name(f"{options.out.stem}_bands"))
    if options.layout == "patterns":
        return find_patterns(options.folder, options.before, options.after, options.label)
    return find_folders(options.folder)


def _columns(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    first, comma, second = text.partition(",")
    if not (comma and first.strip() and second.strip()):
        raise ConfigError(f"--columns: expected the names of two columns as BEFORE,AFTER, got {text!r}")
    return first, second


def _report(found: Found, folder: Path) -> None:
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
