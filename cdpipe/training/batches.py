"""Whether networks can learn from batches as small as the configuration makes them."""

from cdpipe.config.schema import Config
from cdpipe.errors import ConfigError
from cdpipe.models.networks import build_model, input_kind, required_bands, shown_detectors
from cdpipe.store.normalisation import input_channels
from cdpipe.training.plan import architecture_of

ONE_VALUE = "more than 1 value per channel"  # torch.nn.functional.batch_norm


def check_batches(config: Config, workers: int) -> None:
    """Refuse models whose batch normalisation would see a single value of each channel, whose deviation is nothing.

    That is so where a worker's part of the global batch is one sample, and a network reduces it to one pixel somewhere,
    as DeepLabV3 does by pooling, and others with small patches. On the device "meta" it takes no memory to
    find out.

    Args:
        config: The configuration.
        workers: Workers that share a global batch.

    Raises:
        ConfigError: Naming the first such model.
    """
    options = config.train
    if options.global_batch // workers != 1:
        return
    import torch

    for name, model in config.train.models.items():
        architecture, arguments = architecture_of(name, model), model.options
        bands = len(required_bands(architecture, arguments))
        channels = input_channels(input_kind(architecture, arguments), bands) + len(shown_detectors(arguments))
        try:
            with torch.device("meta"), torch.no_grad():
                network = build_model(architecture, **arguments).train()
                network(torch.empty(1, channels, options.patch, options.patch))
        except ValueError as error:
            if ONE_VALUE in str(error):
                raise ConfigError(_describe(name, options.global_batch, workers, options.patch)) from None
        except (TypeError, RuntimeError, AssertionError, AttributeError):
            continue  # what cannot be built at all, `check_buildable` tells


def known_workers(config: Config) -> int:
    """Training workers as far as the configuration alone tells: on GPUs there may be fewer."""
    resources = config.resources
    return resources.workers if resources.gpus == 0 and resources.workers != "auto" else 1


def _describe(name: str, global_batch: int, workers: int, patch: int) -> str:
    shared = f" for {workers} workers" if workers > 1 else ""
    return (
        f"train.models.{name}: with train.global_batch: {global_batch}{shared} and train.patch: {patch} its batch "
        "normalisation would see one value of one sample, from which nothing can be learned; expected at least two "
        f"samples a worker: train.global_batch: {2 * workers}"
    )
