"""``cdpipe export``: a model as a file that runs without cdpipe."""

import argparse
import sys
from typing import Any

from cdpipe.cli.verb import EPILOG, Verb, any_place
from cdpipe.errors import EXIT_DONE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file and what it is to be."""
    parser.add_argument("model", type=any_place, metavar="MODEL", help="a model's folder, or cdpipe")
    parser.add_argument("--out", type=any_place, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--format", choices=("onnx", "pt2", "openvino"), help="default: by FILE's ending")
    parser.add_argument("--batch", type=int, default=1, help="patches it takes at once (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Export a model, and say what the file expects and how far it differs from torch."""
    from cdpipe.api.export import export_model
    from cdpipe.inference.export import FORMATS

    found = export_model(str(options.model), options.out, format=options.format, batch=options.batch)
    source, result, file = found.contract["input"], found.contract["output"], found.contract["file"]
    threshold = "" if result["threshold"] is None else f"; suggested threshold {result['threshold']:g}"
    opset = f"opset {file['opset']}; " if "opset" in file else ""
    lines = [
        *(f"wrote {path}" for path in found.files),
        f"  in:  {_shape(source)}: {', '.join(source['channels'])}",
        f"       {found.contract['normalisation']['formula']}",
        f"  out: {_shape(result)}{threshold}",
        f"  {opset}random input, run by {FORMATS[file['format']].runtime}: at most {found.difference:.1e} from torch",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_DONE


def _shape(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {' x '.join(map(str, tensor['shape']))} {tensor['dtype']}"


EXPORT = Verb("export", "a model as ONNX, torch.export or OpenVINO", add_options, run, EPILOG)
