"""A model as a STAC Item with the Machine Learning Model extension, to be put into a catalog beside the imagery.

Specification: https://github.com/stac-extensions/mlm/tree/v1.4.0. An Item must lie in time; a model does not,
and is given all of it.
"""

import re
from typing import Any

from cdpipe.models.contract import INPUT, OUTPUT, describe_contract
from cdpipe.models.folder import CARD, WEIGHTS, ModelCard

ITEM = "stac-item.json"
VERSION = "1.1.0"  # of STAC
EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
ALWAYS = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
MULTIHASH = "1220"  # what follows is a SHA-256 of 32 bytes
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")  # that the extension allows
TASKS = ["semantic-segmentation"]


def stac_files(card: ModelCard, size: int) -> dict[str, Any]:
    """What :func:`cdpipe.models.folder.save_model` is to write beside a model."""
    return {ITEM: describe_model(card, size)}


def describe_model(card: ModelCard, size: int) -> dict[str, Any]:
    """The Item of a model's folder, which it is written into.

    Args:
        card: The model's card.
        size: Bytes of its weights.
    """
    contract = describe_contract(card)
    bands = [{"name": role} for role in card.roles]
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": f"{card.name}-{card.key}",
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": ALWAYS[0],
            "end_datetime": ALWAYS[1],
            "description": "Finds change between two dates of satellite scenes.",
            "bands": bands,  # which the extension wants here, and the core then also of an asset
            "mlm:name": card.name if NAME.fullmatch(card.name) else f"cdpipe {card.key}",
            "mlm:architecture": card.architecture,
            "mlm:framework": "PyTorch",
            "mlm:tasks": TASKS,
            "mlm:input": [_describe_input(card, contract)],
            "mlm:output": [_describe_output(card, contract)],
            **_start(card),
            "cdpipe:contract": contract,
        },
        "links": [],
        "assets": {
            "weights": {
                "href": f"./{WEIGHTS}",
                "type": "application/octet-stream",
                "title": "weights of the network, whose logits become probabilities by a sigmoid",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors",
                "bands": bands,
                "file:size": size,
                "file:checksum": f"{MULTIHASH}{card.weights_sha256}",
            },
            "card": {
                "href": f"./{CARD}",
                "type": "application/json",
                "title": "all that cdpipe needs besides",
                "roles": ["metadata"],
            },
        },
    }


def _describe_input(card: ModelCard, contract: dict[str, Any]) -> dict[str, Any]:
    recipe = card.recipe
    times = {"difference": 1, "band_difference": 1, "stacked": 2, "stacked_difference": 3}[recipe.kind]
    formula = {"type": "processing", "format": "text", "expression": contract["normalisation"]["formula"]}
    clip = [] if recipe.clip is None else [{"type": "clip", "minimum": -recipe.clip, "maximum": recipe.clip}]
    return {
        "name": INPUT,
        "description": f"channels: {', '.join(contract['input']['channels'])}",
        "bands": list(recipe.roles) * times,
        "input": _describe_tensor(contract["input"]["shape"]),
        "value_scaling": [formula, *clip],
    }


def _describe_output(card: ModelCard, contract: dict[str, Any]) -> dict[str, Any]:
    threshold = "the threshold that is chosen" if card.threshold is None else f"{card.threshold:g}"
    return {
        "name": OUTPUT,
        "description": contract["output"]["meaning"],
        "tasks": TASKS,
        "result": _describe_tensor(contract["output"]["shape"]),
        "classification:classes": [
            {"value": 0, "name": "unchanged", "description": "no change between the dates"},
            {"value": 1, "name": "changed", "description": f"probability of at least {threshold}"},
        ],
    }


def _describe_tensor(shape: list[int]) -> dict[str, Any]:
    return {"shape": [-1, *shape[1:]], "dim_order": ["batch", "channel", "height", "width"], "data_type": "float32"}


def _start(card: ModelCard) -> dict[str, Any]:
    """What its encoder started from, where that is known; the weights of a whole model it started from are not."""
    return {"mlm:pretrained": True, "mlm:pretrained_source": card.pretrained["name"]} if card.pretrained else {}
