"""The detectors that need no training, by the names that they have wherever a model's folder is taken."""

from pathlib import Path

from cdpipe.errors import ConfigError
from cdpipe.workspace.location import Location, Place, here, locate

DETECTORS = ("mad", "irmad", "cva", "difference")
# What answers where no model is named and there is nothing to train one on; docs/accuracy.md says why.
WITHOUT_LABELS = ("mad",)

_FOLDERS = Path(__file__).parents[1] / "models" / "detectors"
_CARD = "model.json"


def detector_folder(name: str) -> Location:
    """The folder of a detector's card, installed with the package: a model's folder like any other."""
    return here(_FOLDERS / name)


def named_model(place: Place, base: Location) -> Location:
    """The folder that is meant where a model is asked for: a detector's, by its name.

    Args:
        place: A folder, or a detector's name.
        base: Where a relative path starts.

    Raises:
        ConfigError: If a model's folder there has that name, too: one of the two would be taken for the other.
    """
    name, folder = str(place), locate(str(place), base).resolve()
    if name not in DETECTORS:
        return folder
    if (folder / _CARD).is_file():
        raise ConfigError(
            f"model {name}: means the detector that comes with cdpipe, and {folder} is a model, too; rename that "
            "folder, or give its absolute path"
        )
    return detector_folder(name)
