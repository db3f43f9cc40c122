"""What whoever runs a network without cdpipe must know: its input channel by channel, and what it gives."""

from typing import Any

from cdpipe.models.folder import ModelCard
from cdpipe.store.normalisation import GREY, Recipe
from cdpipe.version import __version__

FORMAT = 1
INPUT, OUTPUT = "scene", "probability"


def describe_contract(card: ModelCard, batch: int = 1) -> dict[str, Any]:
    """The contract of a model's network as JSON values.

    Args:
        card: The model's card.
        batch: Patches that it takes at once.
    """
    recipe, side = card.recipe, card.patch
    limit = None if recipe.clip is None else [-recipe.clip, recipe.clip]
    return {
        "format": FORMAT,
        "made_by": f"cdpipe {__version__}",
        "model": {
            "name": card.name,
            "key": card.key,
            "architecture": card.architecture,
            "arguments": card.arguments,
            "weights_sha256": card.weights_sha256,
        },
        "input": {
            "name": INPUT,
            "shape": [batch, recipe.channels, side, side],
            "axes": ["patch", "channel", "row", "column"],
            "dtype": "float32",
            "channels": name_channels(recipe),
            "kind": recipe.kind,
            "bands": list(recipe.roles),
            "detectors": list(recipe.detectors),
            "not_observed": "0 in all channels, where either date has no value",
            "beyond_the_edge": "the scene mirrored at its edge",
        },
        "normalisation": {
            "formula": _formula(recipe),
            "method": recipe.method,
            "statistics": recipe.statistics,
            "bands": "together" if recipe.together else "each",
            "clip": limit,
            "bands_that_may_lack": list(recipe.optional),
        },
        "output": {
            "name": OUTPUT,
            "shape": [batch, 1, side, side],
            "dtype": "float32",
            "meaning": "probability of change of each pixel, from 0 to 1; the sigmoid is part of the network",
            "threshold": card.threshold,
        },
    }


def name_channels(recipe: Recipe) -> list[str]:
    """What each channel of a network's input holds, in order, in words."""
    both = [f"{date} {role}" for date in ("before", "after") for role in recipe.roles]
    greys = recipe.kind == "difference"
    difference = [f"before {band} minus after {band}" for band in (("grey",) if greys else recipe.roles)]
    of_dates = {"stacked": both, "stacked_difference": both + difference}.get(recipe.kind, difference)
    return [*of_dates, *(f"2 p - 1 of cdpipe's detector {name}, p its probability" for name in recipe.detectors)]


def _formula(recipe: Recipe) -> str:
    """How pixels become channels, in a sentence."""
    seen = "that date" if recipe.statistics == "per_date" else "both dates"
    if recipe.method == "robust":
        how = "(value - median) / spread of the band, where the spread is the distance of the quartiles / 1.349"
    elif recipe.kind == "difference":
        red, green, blue = GREY
        how = f"(grey - mean) / standard deviation, where grey = {red} red + {green} green + {blue} blue"
    else:
        how = f"(value - mean) / standard deviation of {'all bands together' if recipe.together else 'the band'}"
    limit = "" if recipe.clip is None else f", then clipped to {-recipe.clip:g} to {recipe.clip:g}"
    lacking = f"; {', '.join(recipe.optional)}: 0 at both dates where a scene has none" if recipe.optional else ""
    return f"of each date of a scene: {how}, over all of the scene's pixels that are observed at {seen}{limit}{lacking}"
