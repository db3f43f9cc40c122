"""``cdpipe status``: how far every stage of a run is, from records alone."""

from rich.table import Table

from cdpipe.formats.catalog import read_catalog
from cdpipe.formats.manifest import read_manifest
from cdpipe.formats.records import missing_blocks
from cdpipe.formats.sources import known_hashes
from cdpipe.formats.workspace import Kind
from cdpipe.stages.model_plan import trained_model
from cdpipe.stages.pair_plan import PlannedPair, plan_pairs, source_files, stored_pair
from cdpipe.values.errors import CdpipeError
from cdpipe.values.windows import block_keys
from cdpipe.verbs.session import Session, read_failures
from cdpipe.verbs.train import jobs_for


def run(session: Session) -> None:
    """Print what is done and what is left."""
    pairs = read_catalog(session.config)
    files = [file for pair in pairs for file in source_files(pair)]
    planned, unknown = plan_pairs(pairs, session.config, known_hashes(session.workspace, files))
    manifest = read_manifest(session.run_folder)
    table = Table("stage", "done", "left", "state")
    total = sum(len(_blocks(session, item)) for item in planned)
    left = sum(_left(session, item, "pairs", item.key) for item in planned)
    state = f"{len(unknown)} pair(s) not hashed yet" if unknown else "complete" if not left else "unfinished"
    table.add_row("ingest: blocks", str(total - left), str(left), state)
    for name, trained in _models(session, planned):
        table.add_row(f"train: {name}", "1" if trained else "0", "0" if trained else "1", trained or "not trained")
    published = len(manifest.pairs) if manifest else 0
    state = f"threshold {manifest.threshold:.3f}" if manifest else "no manifest: not run yet, or unfinished"
    table.add_row("predict: pairs", str(published), str(len(pairs) - published), state)
    session.console.print(table)
    for pair_id, reason in read_failures(session).items():
        session.say(f"failed: pair {pair_id}: {reason}")


def _blocks(session: Session, item: PlannedPair) -> list[object]:
    return list(block_keys(item.pair.pair_id, item.grid.shape, session.config.align.block))


def _left(session: Session, item: PlannedPair, kind: Kind, key: str) -> int:
    keys = block_keys(item.pair.pair_id, item.grid.shape, session.config.align.block)
    return len(missing_blocks(session.workspace.records(kind, item.pair.pair_id, key), keys))


def _models(session: Session, planned: list[PlannedPair]) -> list[tuple[str, str]]:
    """Name and state of each configured model; an empty state means that it is not trained."""
    stored = [item for item in planned if stored_pair(session.workspace, item) is not None]
    try:
        jobs = jobs_for(session, stored)
    except CdpipeError:
        return [(name, "") for name in session.config.train.models]
    cards = [(job.name, trained_model(job)) for job in jobs]
    return [(name, f"validation IoU {card.metrics['val_iou']:.3f}" if card else "") for name, card in cards]
