"""Encoders of segmentation-models-pytorch, and how they start from weights of other bands than a model's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn

from cdpipe.errors import InputError
from cdpipe.models.plain import library_entries
from cdpipe.models.pretrained import Pretrained
from cdpipe.models.reading import read_weights
from cdpipe.store.normalisation import RGB, InputKind
from cdpipe.workspace.location import here

smp.encoders.encoders.update(library_entries())

# What each group of an encoder's channels gets of the pretrained kernel. Both dates get half of it, so that unchanged
# ground gives what one image gave. All three groups alike, as the library has it, would take the second date out again:
# before + after + (before - after). This way the first layer sees half of what the dates have in common and half of
# their difference.
SHARES: Mapping[str, tuple[float, ...]] = {
    "date": (1.0,),
    "difference": (1.0,),
    "band_difference": (1.0,),
    "stacked": (0.5, 0.5),
    "stacked_difference": (0.25, 0.25, 0.5),
}
_HEADS = ("fc.", "head.", "classifier.", "last_linear.")  # of the task that the weights were trained for


@dataclass(frozen=True, slots=True)
class Channels:
    """What an encoder sees.

    Attributes:
        kind: ``date`` for one date's bands at a time; else what a model eats.
        bands: Names of the bands; of a grey ``difference`` those that the grey is made of.
        more: Channels that follow, which are no bands.
    """

    kind: InputKind | str
    bands: tuple[str, ...]
    more: int = 0

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(SHARES[self.kind]) * (1 if self.kind == "difference" else len(self.bands)) + self.more

    @property
    def suit_library(self) -> bool:
        """Whether what the library does itself is right: red, green and blue in this order, or their sum."""
        return self.bands == RGB and self.kind != "stacked_difference" and not self.more


def check_encoder(encoder: str, weights: str | None) -> None:
    """Refuse an encoder or a kind of the library's weights that does not exist.

    Raises:
        ValueError: If that is so.
    """
    known = smp.encoders.encoders
    # The library wraps any timm encoder behind the prefix tu-, and checks those names itself.
    if encoder not in known and not encoder.startswith("tu-"):
        close = get_close_matches(encoder, known) or sorted(known)
        raise ValueError(f"no encoder named {encoder!r}; did you mean {', '.join(close)}?")
    settings = known.get(encoder, {}).get("pretrained_settings", {})
    if encoder in known and weights is not None and weights not in settings:
        raise ValueError(f"{encoder} has no weights {weights!r}; there are {', '.join(settings) or 'none'}")


def check_pretrained(encoder: str, weights: Pretrained, channels: Channels) -> None:
    """Refuse weights that are not of an encoder, or not of a model's bands.

    Raises:
        ValueError: If that is so.
    """
    check_encoder(encoder, weights.name if weights.of_library else None)
    if weights.published is not None and weights.published.encoder != encoder.removeprefix("tu-"):
        raise ValueError(f"encoder_weights: {weights.name} are of {weights.published.encoder}, not of {encoder}")
    weights.check_bands(channels.bands)


def with_encoder(build: Callable[[], nn.Module], encoder: str, weights: str | None) -> nn.Module:
    """Run what fetches an encoder and its weights, and say what to do where that fails."""
    check_encoder(encoder, weights)
    try:
        return build()
    except OSError as error:
        repository, revision = _library_source(encoder, weights)
        raise InputError(
            f"expected the {weights} weights of encoder {encoder} on the Hugging Face hub or in its cache,"
            f" {HF_HUB_CACHE}, and could not get them: {error}\n"
            "Either start from random weights (encoder_weights: null), or run"
            f" `hf download {repository} --revision {revision}` on a machine with a connection"
            " and copy its cache here."
        ) from error


def _library_source(encoder: str, weights: str | None) -> tuple[str, str]:
    source = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(weights, {})
    return source.get("repo_id", f"of {encoder}"), source.get("revision", "main")


def start_encoder(encoder: nn.Module, name: str, weights: Pretrained, channels: Channels) -> None:
    """Load pretrained weights into an encoder, its first convolution by the bands' names; see :func:`adapt`.

    Args:
        encoder: For images of ``channels.count`` channels.
        name: The encoder's.
        weights: Fetched if they have no file.
        channels: What the encoder sees.

    Raises:
        ValueError: If a band is missing that is not to start from anything else.
        InputError: If the weights cannot be had or do not fit, naming what does not.
    """
    check_pretrained(name, weights, channels)
    expected = encoder.state_dict()
    if weights.of_library:
        build = partial(
            smp.encoders.get_encoder, name, depth=getattr(encoder, "_depth", 5), in_channels=3, weights=weights.name
        )
        given = dict(with_encoder(build, name, weights.name).state_dict())
    else:
        with weights_file(weights) as path:
            given = fitting_names(read_weights(path)[0], list(expected), weights.name)
    firsts = _first_convolutions(encoder, given, channels.count, weights)
    for first in firsts:
        given[f"{first}.weight"], constant = adapt(given[f"{first}.weight"], weights, channels)
        if constant.any():
            _absorb(encoder, first, given, constant)
    _check_fit(given, expected, weights)
    encoder.load_state_dict(given, strict=False)  # but for counters of norms, see above


@contextmanager
def weights_file(weights: Pretrained) -> Iterator[Path]:
    """The file of weights that are not the library's, on this machine; what was fetched once is not fetched again.

    Raises:
        InputError: If it cannot be had, or is another.
    """
    if weights.file is not None:
        with weights.file.file_on_disk() as path:
            _check_hash(path, weights)
            yield path
        return
    source = weights.published
    if source is None:
        raise ValueError(f"{weights.name}: has no file of its own")
    try:
        path = Path(hf_hub_download(source.repository, source.file, revision=source.revision))
    except (OSError, EntryNotFoundError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(
            f"encoder_weights: {weights.name} is not in the cache, {HF_HUB_CACHE}, and could not be fetched ({first}); "
            f"download {source.url} on a machine with a connection, and give encoder_weights: PATH/{source.file}"
        ) from error
    _check_hash(path, weights)
    yield path


def _check_hash(path: Path, weights: Pretrained) -> None:
    digest = here(path).sha256()
    if not digest.startswith(weights.sha256):
        raise InputError(
            f"encoder_weights: {path} is not {weights.name}: its SHA-256 begins with {digest[:8]}, expected "
            f"{weights.sha256[:8]}; remove it and fetch it again"
        )


def weights_sha256(encoder: str, weights: Pretrained) -> str | None:
    """SHA-256 of the file that weights come from; None where timm alone knows it."""
    if not weights.of_library:
        with weights_file(weights) as path:
            return here(path).sha256()
    if encoder not in smp.encoders.encoders:
        return None
    repository, revision = _library_source(encoder, weights.name)
    try:
        return here(Path(hf_hub_download(repository, "model.safetensors", revision=revision))).sha256()
    except (OSError, EntryNotFoundError):
        return None  # the encoder of that name is timm's after all


def fitting_names(given: Mapping[str, Tensor], expected: Sequence[str], name: str) -> dict[str, Tensor]:
    """Entries of weights under an encoder's names for them.

    What stands before all names of the encoder (``module.encoder_q.``, ``backbone.``, ``encoder.``, ...) is taken off;
    what has another beginning is not the encoder's, nor are heads of classes. An encoder of timm has ``model.`` before
    its own names.

    Raises:
        InputError: If there is no such beginning, or more than one.
    """
    wanted = {key.removeprefix("model."): key for key in expected}
    first = next(iter(wanted))
    beginnings = [key.removesuffix(first) for key in given if key == first or key.endswith(f".{first}")]
    # of a network and its slowly moving copy (MoCo), the network
    beginnings = [each for each in beginnings if not any(word in each for word in ("encoder_k", "momentum", "target"))]
    hits = {each: sum(f"{each}{key}" in given for key in wanted) for each in beginnings}
    chosen = [each for each in beginnings if hits[each] == max(hits.values())]  # a layer's names may end like it too
    if len(chosen) != 1:
        found = ", ".join(f"{each}{first}" for each in chosen) or f"{', '.join(list(given)[:3])}, ..."
        raise InputError(f"encoder_weights: {name}: expected one encoder, which begins with {first}, found {found}")
    own = {key.removeprefix(chosen[0]): value for key, value in given.items() if key.startswith(chosen[0])}
    return {wanted.get(key, key): value for key, value in own.items() if not key.startswith(_HEADS)}


def adapt(kernel: Tensor, weights: Pretrained, channels: Channels) -> tuple[Tensor, Tensor]:
    """A first kernel for a model's channels, made of a pretrained one by the names of the bands.

    A model's bands are standardised; the weights may have been trained on something else, such as reflectance. So a
    band's column is multiplied by its deviation there, and what the bands' means would have given is a constant: 0
    stands for the mean, 1 for a deviation above it, and the layer gives what it gave for the image that is meant by
    that. Bands that the model does not have stand at their means. A grey gets the sum of its bands' columns. Where the
    model's bands are normalised ``together``, so are the weights': by the mean and deviation of those bands pooled.

    Every date gets the same columns, times what :data:`SHARES` says; a difference gets them as well: no change looks
    like an image of one value, the mean. Of bands that the weights do not have, ``other_bands: mean`` has them start
    from the mean of the model's other columns, and all columns shrink so that their sum stays; ``zeros`` has them seen
    by nothing at first, and so are channels that are no bands.

    Args:
        kernel: (outputs, bands, height, width).
        weights: Whose it is.
        channels: What the model's encoder sees.

    Returns:
        The kernel, (outputs, channels, height, width), and the constant to add to its output, (outputs,).
    """
    figures = _figures(weights, channels.bands)
    columns = {name: kernel[:, number] * deviation for number, (name, _, deviation) in enumerate(figures)}
    constant = sum(
        (kernel[:, number].sum((1, 2)) * mean for number, (name, mean, _) in enumerate(figures) if name),
        torch.zeros(len(kernel)),
    )
    known = [band for band in channels.bands if band in columns]
    other = torch.zeros_like(kernel[:, 0])
    if weights.other_bands == "mean":
        other = torch.stack([columns[band] for band in known]).mean(0)
    date = torch.stack([columns.get(band, other) for band in channels.bands], dim=1)
    if weights.other_bands == "mean":
        date = date * (len(known) / len(channels.bands))
    if channels.kind == "difference":
        date = date.sum(1, keepdim=True)
    others = kernel.new_zeros(len(kernel), channels.more, *kernel.shape[2:])
    return torch.cat([*(date * share for share in SHARES[channels.kind]), others], dim=1), constant


def _figures(weights: Pretrained, bands: Sequence[str]) -> list[tuple[str | None, float, float]]:
    """The weights' bands with mean and deviation; pooled are those of a model that normalises its bands together."""
    own = [(mean, deviation) for name, mean, deviation in weights.bands if name in bands]
    if not weights.together or not own:
        return list(weights.bands)
    mean = sum(mean for mean, _ in own) / len(own)
    square = sum(deviation**2 + each**2 for each, deviation in own) / len(own) - mean**2
    return [(band[0], mean, float(square**0.5)) if band[0] in bands else band for band in weights.bands]


def _first_convolutions(encoder: nn.Module, given: Mapping[str, Tensor], count: int, weights: Pretrained) -> list[str]:
    """Names of the convolutions that see the image itself; some encoders have several side by side."""
    convolutions = {name: each for name, each in encoder.named_modules() if isinstance(each, nn.Conv2d)}
    bands = len(weights.bands)
    firsts = [
        name
        for name, each in convolutions.items()
        if each.in_channels == count and each.groups == 1
        if f"{name}.weight" in given and given[f"{name}.weight"].shape[1] == bands
    ]
    first = next(iter(convolutions))
    if first not in firsts:
        found = given.get(f"{first}.weight")
        what = f"takes {found.shape[1]}" if found is not None else "is not among them"
        raise InputError(f"encoder_weights: {weights.name}: expected a first kernel of {bands} bands; {first} {what}")
    return firsts


def _absorb(encoder: nn.Module, first: str, given: dict[str, Tensor], constant: Tensor) -> None:
    """Have what follows a convolution add a constant to its output: its bias, or the norm's running mean."""
    modules = [(name, each) for name, each in encoder.named_modules() if not list(each.children())]
    place = next(number for number, (name, _) in enumerate(modules) if name == first)
    norm, after = modules[place + 1]
    if f"{first}.bias" in given:
        given[f"{first}.bias"] = given[f"{first}.bias"] + constant
    elif isinstance(after, nn.BatchNorm2d) and f"{norm}.running_mean" in given:
        given[f"{norm}.running_mean"] = given[f"{norm}.running_mean"] - constant
    else:
        raise InputError(
            f"encoder_weights: the mean of bands needs a bias or a batch norm after {first}, and there is neither; "
            "leave out mean"
        )


def _check_fit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], weights: Pretrained) -> None:
    """Refuse weights that do not fit an encoder; counters of norms may be missing."""
    problems = {
        "left over": [key for key in given if key not in expected],
        "missing": [key for key in expected if key not in given and not key.endswith("num_batches_tracked")],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in given and given[key].shape != value.shape
        ],
    }
    listed = [
        f"{len(keys)} {problem}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for problem, keys in problems.items()
        if keys
    ]
    if listed:
        raise InputError(f"encoder_weights: {weights.name} does not fit the encoder: {'; '.join(listed)}")
