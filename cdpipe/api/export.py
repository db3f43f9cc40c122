"""A model as a file that runs without cdpipe."""

from typing import TYPE_CHECKING, Literal

from cdpipe.config.detectors import named_model
from cdpipe.errors import ConfigError
from cdpipe.models.ensemble_folder import find_ensemble, read_ensemble
from cdpipe.models.folder import read_card
from cdpipe.workspace.location import Place, located

if TYPE_CHECKING:
    from cdpipe.inference.export import Exported

SUFFIXES: dict[str, Literal["onnx", "pt2", "openvino"]] = {".onnx": "onnx", ".pt2": "pt2", ".xml": "openvino"}


def export_model(
    model: Place,
    out: Place,
    *,
    format: Literal["onnx", "pt2", "openvino"] | None = None,  # noqa: A002 (the word that users know)
    batch: int = 1,
) -> "Exported":
    """Write a model's network as ONNX, ``torch.export`` or OpenVINO, with what whoever runs it must know.

    Args:
        model: A model's folder, or ``cdpipe``.
        out: The file; of OpenVINO's two the one that ends in ``.xml``.
        format: Its format; by default what its ending says.
        batch: Patches that the network takes at once.

    Raises:
        ConfigError: If the model is an ensemble or a detector, the format is not known, a package is missing, or the
            format lacks an operation of the network.
        InputError: If there is no such model, or it never learned anything.
        IntegrityError: If its weights are not the ones that its card names.
        CdpipeError: If the exported network gives other probabilities than torch.
    """
    folder, file = named_model(model), located(out)
    kind = format or SUFFIXES.get(file.suffix.lower())
    if kind is None:
        raise ConfigError(f"{file}: expected a name that ends in {', '.join(SUFFIXES)}, or a format")
    if batch < 1:
        raise ConfigError(f"export: expected a batch of at least one patch, got {batch}")
    ensemble = find_ensemble(folder)
    if ensemble is not None:
        names = ", ".join(str(ensemble / member.folder) for member in read_ensemble(ensemble).members)
        raise ConfigError(f"{folder}: is an ensemble, of which each model is exported by itself: {names}")
    card = read_card(folder)
    from cdpipe.inference.export import export_network

    return export_network(folder, card, kind, file, batch)
