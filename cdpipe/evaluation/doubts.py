"""When figures say that a result is not to be believed: in words, with what to try."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cdpipe.config.detectors import WITHOUT_LABELS
from cdpipe.evaluation.scores import BASELINE, ENSEMBLE

POOR = 0.2  # IoU below which the changed area is no measurement
# The first of them that has change; given models and detectors have pairs of no split.
TELLING = {"test": "test", "val": "validation", "unsplit": "labelled"}
TRY = (
    "try more labelled change, an encoder that starts from pretrained weights (train.models.<name>.encoder_weights), a "
    f"model that starts from a trained one (init_from), more epochs, or what learns nothing (predict.members: "
    f"[{', '.join(WITHOUT_LABELS)}])"
)


def doubt_results(
    rows: Sequence[Mapping[str, Any]], untrained: Collection[str] = (), cut: Collection[str] = ()
) -> list[str]:
    """What is wrong with a run's results, by its test, else its validation, else its other labelled pairs.

    Nothing where all is well.

    Args:
        rows: Of the evaluation, see :mod:`cdpipe.evaluation.tables`.
        untrained: Layers of detectors that learned nothing.
        cut: Splits that have strips instead of pairs.
    """
    for split, meaning in TELLING.items():
        pooled = {row["layer"]: row for row in rows if row["pair_id"] is None and row["split"] == split}
        if any(row["tp"] + row["fn"] for row in pooled.values()):
            where = f"{meaning} {'strips' if split in cut else 'pairs'}"
            return [*_worse_than_plain(pooled, untrained, where), *_poor(pooled, where)]
    return []


def _worse_than_plain(pooled: Mapping[str, Mapping[str, Any]], untrained: Collection[str], where: str) -> list[str]:
    """Trained layers that something plain would outdo."""
    plain = {name: row["iou"] for name, row in pooled.items() if name == BASELINE or name in untrained}
    trained = [name for name in pooled if name not in plain]
    if not plain or set(trained) <= {ENSEMBLE}:  # an ensemble of detectors alone learned nothing
        return []
    best = max(plain, key=lambda name: plain[name] if plain[name] == plain[name] else -1.0)
    worse = [f"{name} ({pooled[name]['iou']:.3f})" for name in trained if pooled[name]["iou"] < plain[best]]
    if not worse:
        return []
    rule = f"the {plain[best]:.3f} of {best}, which learned nothing"
    if best == BASELINE:
        rule = f"the {plain[best]:.3f} that thresholding the difference of the dates could reach"
    return [f"on {where} the IoU of {', '.join(worse)} is below {rule}: {TRY}"]


def _poor(pooled: Mapping[str, Mapping[str, Any]], where: str) -> list[str]:
    """An ensemble of whose change little is right, or that misses most."""
    row = pooled.get(ENSEMBLE)
    if row is None or not row["iou"] < POOR:
        return []
    said = row["tp"] + row["fp"]
    right = f"of what it calls change {row['precision']:.0%} is, and " if said else ""
    found = f"it finds {row['recall']:.0%} of what changed"
    return [f"on {where} the ensemble's IoU is {row['iou']:.3f}: {right}{found}; its changed area is no measurement"]
