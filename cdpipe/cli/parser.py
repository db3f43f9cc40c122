"""What the command line understands; nothing slow is imported here, so that --help is quick."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cdpipe.pairs.layouts import LAYOUTS
from cdpipe.version import __version__

if TYPE_CHECKING:
    from cdpipe.workspace.location import Location

VERBS = {
    "ingest": "rasters and labels into the store",
    "train": "train every configured model",
    "predict": "models over all pairs, ensemble, change, GeoTIFFs",
    "evaluate": "figures and pictures against the labels",
    "audit": "what a run says of itself without labels: seams, swapped dates, false alarms, shift",
    "report": "pages to open in a browser: every pair, its best changes, figures, what failed",
    "review": "verdicts saved in the report's gallery as labels to train on, and a catalog with them",
    "submission": "change masks as run-length text, and such text as rasters",
    "threshold": "what a wanted precision or recall costs",
    "sample": "draw points to label, for an area estimate",
    "area": "changed area with its confidence interval, from labelled points",
    "pipeline": "ingest, train, predict, evaluate, audit, report",
    "verify": "hash everything stored again; withdraw what is damaged",
    "status": "what is done, what is left, what failed",
}
EPILOG = "exit codes: 0 done, 1 bug, 2 configuration, 3 input, 4 integrity, 5 done but for the pairs listed, 75 locked"


def make_parser() -> argparse.ArgumentParser:
    """All verbs with their options."""
    parser = argparse.ArgumentParser(prog="cdpipe", description="Find change in satellite imagery.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"cdpipe {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    init = verbs.add_parser("init", help="write a commented configuration and an empty catalog")
    init.add_argument("folder", type=_local, nargs="?", default=Path())
    _add_catalog(verbs.add_parser("catalog", help="build the catalog from folders of a known layout", epilog=EPILOG))
    check = verbs.add_parser("check", help="open everything the catalog names and list every problem")
    _add_config(check)
    check.add_argument("--read", action="store_true", help="read every raster in full")
    check.add_argument(
        "--deep", action="store_true", help="read all pairs: shift, clouds, saturation, radiometric offset, dates"
    )
    for verb, text in VERBS.items():
        _add_run_options(verbs.add_parser(verb, help=text, epilog=EPILOG), verb)
    show = verbs.add_parser("config", help="print a whole configuration: of a file, a preset, or the original's JSON")
    _add_config(show, optional=True)
    show.add_argument("--preset", metavar="NAME", help="a named recipe; without any argument they are listed")
    show.add_argument(
        "--from", dest="source", type=_local, metavar="JSON", help="configuration of the original program"
    )
    _add_import(verbs.add_parser("import-weights", help="weights that others trained, as a model folder"))
    doctor = verbs.add_parser("doctor", help="what this machine or cluster has, and what that means for a run")
    _add_config(doctor, optional=True)
    doctor.add_argument("-v", "--verbose", action="store_true", help="show Ray's own messages")
    compare = verbs.add_parser("compare", help="where two runs differ, by how much, and maps of it", epilog=EPILOG)
    for name in ("run_a", "run_b"):
        compare.add_argument(name, type=_anywhere, metavar=name.upper(), help="folder of a run, such as work/runs/NAME")
    compare.add_argument("--out", type=_anywhere, help="folder to write to (default: compare/ in RUN_A)")
    demo = verbs.add_parser("demo", help="make sample scenes and run the whole pipeline on them")
    demo.add_argument(
        "--out", type=_local, default=Path("demo"), help="folder for scenes and results (default: ./demo)"
    )
    demo.add_argument("--scenes", action="store_true", help="make only the scenes, and a configuration for them")
    demo.add_argument("-v", "--verbose", action="store_true", help="show Ray's own messages")
    return parser


def _add_catalog(parser: argparse.ArgumentParser) -> None:
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for layout in LAYOUTS.values():
        one = layouts.add_parser(layout.name, help=layout.text, description=layout.text)
        one.add_argument("folder", type=_local, metavar="DIR", help="where the files are")
        for option in layout.options:
            kind = _local if option.is_path else str
            one.add_argument(
                f"--{option.name}", type=kind, required=option.required, metavar=option.metavar, help=option.text
            )
        one.add_argument(
            "--out", type=_local, default=Path("pairs.csv"), help="catalog to write (default: %(default)s)"
        )
        one.add_argument("--force", action="store_true", help="overwrite the catalog")
        one.add_argument("--config", type=_local, metavar="FILE", help="also write a configuration to start with")


def _add_config(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument("config", type=_local, nargs="?" if optional else None, help="configuration (YAML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key, as predict.threshold=0.4",
    )


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=_local, help="a state dict (.pth, .pt, .safetensors), alone or under state_dict")
    parser.add_argument("--model", required=True, help="architecture, such as siamese_dpn92 or unetplusplus")
    parser.add_argument("--out", type=_local, required=True, help="model folder to write; its name is the model's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="the network's options, as encoder=resnet34"
    )
    # by default as the original program trained
    parser.add_argument("--patch", type=int, default=256, help="patch it was trained with (default: %(default)s)")
    parser.add_argument("--statistics", choices=("per_date", "common"), default="per_date", help="default: %(default)s")
    parser.add_argument("--bands", choices=("together", "each"), default="together", help="default: %(default)s")


def _add_sample(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--points", type=int, metavar="N", help="how many points (default: as the standard error needs)")
    size.add_argument(
        "--standard-error", type=float, default=0.01, help="wanted, of overall accuracy (default: %(default)s)"
    )
    parser.add_argument(
        "--buffer", type=float, default=0.0, metavar="METRES", help="a stratum of its own this far around change"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random draw (default: %(default)s)")
    parser.add_argument(
        "--out", type=_local, help="GeoPackage to write (default: area/sample.gpkg in the run's folder)"
    )


def _add_run_options(parser: argparse.ArgumentParser, verb: str) -> None:
    _add_config(parser, optional=verb == "predict")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's own messages")
    parser.add_argument("--wait", action="store_true", help="wait while another run holds the workspace")
    if verb not in ("verify", "status"):
        parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    if verb in ("ingest", "pipeline"):
        parser.add_argument("--failed", action="store_true", help="ingest only pairs that failed last time")
        parser.add_argument("--keep-going", action="store_true", help="leave out pairs that the check finds unusable")
    if verb == "evaluate":
        parser.add_argument(
            "--submission",
            type=_anywhere,
            action="append",
            help="table Id,mask to judge and compare too; may be repeated",
        )
    if verb == "submission":
        direction = parser.add_mutually_exclusive_group()
        direction.add_argument("--template", type=_anywhere, help="sample submission whose ids and order to keep")
        direction.add_argument("--rasters", type=_anywhere, metavar="FILE", help="submission to write as GeoTIFFs")
        parser.add_argument(
            "--out", type=_anywhere, help="file to write, with --rasters a folder (default: in the run's)"
        )
    if verb == "threshold":
        aim = parser.add_mutually_exclusive_group()
        aim.add_argument("--precision", type=float, metavar="SHARE", help="at least this much (default: the best F1)")
        aim.add_argument("--recall", type=float, metavar="SHARE", help="at least this much")
    if verb == "sample":
        _add_sample(parser)
    if verb == "area":
        parser.add_argument("sample", type=_local, metavar="SAMPLE.gpkg", help="the labelled points")
    if verb == "review":
        parser.add_argument("review", type=_here, metavar="FILE", help="review.geojson, as the report saved it")
        parser.add_argument("--out", type=_here, help="folder for labels and catalog (default: in the run's)")
    if verb == "predict":
        parser.add_argument("--split", action="append", choices=("train", "val", "test"), help="only pairs of a split")
        parser.add_argument("--pair", action="append", metavar="ID", help="only this pair; may be repeated")
        parser.add_argument("--before", type=_anywhere, help="first date (instead of a configuration)")
        parser.add_argument("--after", type=_anywhere, help="second date")
        parser.add_argument("--model", type=_anywhere, action="append", help="model folder; several make an ensemble")
        parser.add_argument("--out", type=_local, help="folder for the results")
        parser.add_argument("--bands", default="red=1,green=2,blue=3", help="what the bands are (default: %(default)s)")


def _anywhere(text: str) -> "Location":
    """A file or folder of this machine or in object storage."""
    from cdpipe.errors import ConfigError
    from cdpipe.workspace.location import locate

    try:
        return locate(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _local(text: str) -> Path:
    """A path of this machine; an address would make a folder of that name."""
    return _here(text).local()


def _here(text: str) -> "Location":
    """A file or folder of this machine."""
    location = _anywhere(text)
    if location.far:
        raise argparse.ArgumentTypeError(f"{location}: expected a file or folder of this machine here")
    return location
