"""Peak memory of a worker (VmHWM of a process of its own) over all blocks of scenes of 5k, 10k and 20k pixels a side.

Ingest: the block function on a pair of deflate GeoTIFFs, 4 bands of uint16 each. Predict: block function and ensemble
with both headline networks in float32, as torch runs them, in all eight views, which see one row of patches of one
block, since the rest is stored as not observed; and the same with a model that returns its input. So that large scenes
are made quickly, only blocks on the diagonal hold land; the others are zeros, of the same size in memory. Malloc is set
as cdpipe sets it in its workers.
"""

import argparse
import tempfile
from pathlib import Path

from stored_scenes import BLOCK, ROLES, describe_scene, make_job, run_pair, store_scene, write_scene
from timing import MALLOC, Row, own_peak, peak_memory, show

from cdpipe.cluster.memory import keep_freed_memory
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.ingest import ingest_block
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

NETWORKS = ("unetplusplus", "siamese_seresnext50")
PATCH = 256
PARTS = ("ingest", "plane", "predict")


def main() -> None:
    """Measure and print, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10000, 20000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        [size] = options.sizes
        if options.part == "ingest":
            _ingest(options.folder, size)
        else:
            _predict(options.folder, size, identity=options.part == "plane")
        print(own_peak())
        return
    rows = []
    targets = {"ingest": "<= 600 MiB, flat", "plane": "flat", "predict": "<= 2048 MiB, flat"}
    for part, target in ((part, targets[part]) for part in options.parts):
        peaks = {}
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["--part", part, "--folder", folder, "--sizes", str(size)]
                _prepare(Path(folder), size, part)
                peaks[size] = peak_memory(Path(__file__), *arguments, environment={} if part == "ingest" else MALLOC)
        text = ", ".join(f"{size}: {peak / 2**20:.0f} MiB" for size, peak in peaks.items())
        what = {"ingest": "ingest", "plane": "predict, identity", "predict": f"predict, {' and '.join(NETWORKS)}"}[part]
        rows.append(Row(what, text, "smallest scene", peaks[options.sizes[-1]] / peaks[options.sizes[0]], target))
    show("peak memory of a worker", rows)


def _prepare(root: Path, size: int, part: str) -> None:
    if part == "ingest":
        for seed, name in enumerate(("before", "after")):
            write_scene(root / f"{name}.tif", size, seed, diagonal=True)
    else:
        # a few patches are enough for the networks
        seen, rows = (1, PATCH) if part == "predict" else (-(-size // BLOCK), BLOCK)
        store_scene(root, size, [(number, number) for number in range(seen)], rows)


def _ingest(root: Path, size: int) -> None:
    keep_freed_memory()
    job = make_job(root, root / "work")
    for key in block_keys("p", (size, size), BLOCK):
        ingest_block(job, key, imagery=True, label=False)


def _predict(root: Path, size: int, *, identity: bool) -> None:
    import torch  # noqa: PLC0415 (would count in ingest's process)

    from cdpipe.inference.patches import Execution  # noqa: PLC0415
    from cdpipe.inference.torch import make_forward  # noqa: PLC0415
    from cdpipe.models.folder import ModelCard  # noqa: PLC0415
    from cdpipe.models.networks import build_model  # noqa: PLC0415
    from cdpipe.prediction.block import Member, predict_block, probability_key  # noqa: PLC0415
    from cdpipe.prediction.ensemble import ensemble_block, plan_ensemble  # noqa: PLC0415
    from cdpipe.runs.results import create_result_groups  # noqa: PLC0415

    torch.set_num_threads(1)
    pair, workspace = describe_scene(size), Workspace(here(root))
    execution = Execution("none" if identity else "d4", "float32", "cpu", 1)
    members = tuple(
        Member(
            ModelCard(name, name, {}, ROLES[:3], "common", False, PATCH, "0"),
            here(Path()),
            name,
            None,
            1.0,
            0.0,
            execution,
        )
        for name in (NETWORKS[:1] if identity else NETWORKS)
    )
    ensemble = plan_ensemble([(probability_key(pair.key, member), 1.0) for member in members], 0.5)
    create_result_groups(workspace, run_pair(pair, members, ensemble))
    forwards = [
        (lambda patches: patches[:, 0]) if identity else make_forward(build_model(member.name), execution)
        for member in members
    ]
    for key in pair.blocks():
        for member, forward in zip(members, forwards, strict=True):
            predict_block(workspace, pair, key, member, forward)
        ensemble_block(workspace, pair, key, ensemble)


if __name__ == "__main__":
    main()
