"""What comes with cdpipe, by the names that it has wherever a model's folder is taken: detectors, and a model."""

from pathlib import Path

from cdpipe.errors import ConfigError
from cdpipe.workspace.location import Location, Place, here, locate

DETECTORS = ("mad", "irmad", "cva", "difference")
SHIPPED = "cdpipe"  # the model that was trained on made-up scenes alone
# What answers together where no model is named and there is nothing to train one on: the detectors by themselves where
# the shipped model's bands are not known. docs/accuracy.md says why.
WITHOUT_LABELS = ("mad", "cva")
WITH_COLOURS = (SHIPPED, *WITHOUT_LABELS)
FINE_M = 3.0  # metres: of smaller pixels the model finds more without the detectors, which find next to nothing
NAMED = (*DETECTORS, SHIPPED)

_MODELS = Path(__file__).parents[1] / "models"
_CARD = "model.json"


def detector_folder(name: str) -> Location:
    """The folder of a detector's card, installed with the package: a model's folder like any other."""
    return here(_MODELS / "detectors" / name)


def named_folder(name: str) -> Location:
    """The folder of one of ``NAMED``."""
    return here(_MODELS / "shipped") if name == SHIPPED else detector_folder(name)


def named_model(place: Place, base: Location | None = None) -> Location:
    """The folder that is meant where a model is asked for: that of what comes with cdpipe, by its name.

    Args:
        place: A folder, or one of ``NAMED``.
        base: Where a relative path starts; by default the current folder.

    Raises:
        ConfigError: If a model's folder there has that name, too: one of the two would be taken for the other.
    """
    name, folder = str(place), locate(str(place), base or here(Path.cwd())).resolve()
    if name not in NAMED:
        return folder
    if (folder / _CARD).is_file():
        kind = "model" if name == SHIPPED else "detector"
        raise ConfigError(
            f"model {name}: means the {kind} that comes with cdpipe, and {folder} is a model, too; rename that "
            "folder, or give its absolute path"
        )
    return named_folder(name)
