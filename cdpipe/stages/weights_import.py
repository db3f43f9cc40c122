"""Foreign weights become a model folder that training starts from or prediction uses."""

from dataclasses import dataclass
from pathlib import Path

from cdpipe.config.schema import Model, Normalisation
from cdpipe.errors import ConfigError, InputError
from cdpipe.formats.foreign_weights import read_weights
from cdpipe.formats.model_io import CARD, ModelCard, save_model
from cdpipe.models import build_model, load_published, required_bands


@dataclass(frozen=True, slots=True)
class Import:
    """What became of a file of weights.

    Attributes:
        card: Of the model folder.
        loaded: Entries that were loaded.
        beside: Numbers that lay beside the weights, such as the epoch and scores.
    """

    card: ModelCard
    loaded: int
    beside: dict[str, float]


def import_weights(
    path: Path, folder: Path, architecture: str, model: Model, settings: tuple[Normalisation, int]
) -> Import:
    """Load weights into a network and write them as a model folder.

    Args:
        path: See :func:`cdpipe.formats.foreign_weights.read_weights`.
        folder: The model folder to write, which also gives the model its name.
        architecture: Name in :func:`cdpipe.models.build_model`.
        model: Its options.
        settings: Normalisation and patch that the weights were trained with.

    Raises:
        ConfigError: If there is no such network.
        InputError: If the file cannot be read or does not fit the network, or the folder is a model already.
    """
    if (folder / CARD).exists():
        raise InputError(f"{folder}: is a model folder already; remove it or name another")
    options = {name: value for name, value in model.options.items() if name != "encoder_weights"}
    try:
        network = build_model(architecture, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--model {architecture}: {error}") from None
    state, beside = read_weights(path)
    try:
        fresh = load_published(network, state)
    except ValueError as error:
        raise InputError(f"{path}: does not fit {architecture}: {error}") from None
    normalisation, patch = settings
    card = ModelCard(
        name=folder.name,
        architecture=architecture,
        arguments=options,
        roles=required_bands(architecture, options),
        statistics=normalisation.statistics,
        together=normalisation.bands == "together",
        patch=patch,
        weights_sha256="",
        fresh=fresh,
        metrics=beside,
    )
    return Import(save_model(folder, card, network.state_dict()), len(state) - len(fresh), beside)
