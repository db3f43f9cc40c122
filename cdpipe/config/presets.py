"""Named recipes that a configuration may start from; the user's own keys win."""

from typing import Any

ORIGINAL = "original"
KANOPUS = "kanopus"  # the satellites whose images it was made for
KANOPUS_BANDS = {"red": 1, "green": 2, "blue": 3, "nir": 4}

# What the single-GPU program that cdpipe replaces did, as far as it bears on results.
_RECIPE: dict[str, Any] = {
    "normalisation": {"statistics": "per_date", "bands": "together"},
    "train": {
        "patch": 256,
        "global_batch": 5,
        "epochs": 150,
        "samples_per_pair": 100,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "schedule": "exponential",
        "decay": 0.97,
        "clip_norm": 0.0,
        "ema": 0.0,
        "keep": "best",
        "patience": 7,
        "loss": ["dice", "bce"],
        "sampling": "cells",
        "changed_share": 0.7,
        "pair_weight": "area",
        "augment": [{"D4": {"p": 1.0}}],
        "precision": "auto_gpu",
        "memory_format": "channels_last",
    },
    "predict": {"overlap": 0.0, "tta": "d4", "precision": "float32", "threshold": 0.4},
}


def _grey(encoder: str) -> dict[str, Any]:
    return {"architecture": "unetplusplus", "encoder": encoder, "encoder_weights": "imagenet"}


def _colour(network: str) -> dict[str, Any]:
    # weights of the xView2 solution, brought there by `cdpipe import-weights`
    return {"architecture": f"siamese_{network}", "init_from": f"models/xview2/{network}"}


# By the name of the original's configuration file: the name it saved the model under (with `++` spelled out), and ours.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet++_resnet34": ("unetplusplus_resnet34", _grey("resnet34")),
    "unet++_resnet50": ("unetplusplus_resnet50", _grey("resnet50")),
    "unet++_resnext50": ("unetplusplus_resnext50", _grey("resnext50_32x4d")),
    "unet++_seresnext50": ("unetplusplus_se_resnext50_32x4d", _grey("se_resnext50_32x4d")),
    "siamese_seresnext50": ("siamese_unet_seresnext50", _colour("seresnext50")),
    "siamese_resnext101": ("siamese_unet_resnext101", _colour("resnext101")),
    "siamese_densenet161": ("siamese_unet_densenet161", _colour("densenet161")),
    "siamese_dpn92": ("siamese_unet_dpn92", _colour("dpn92")),
    "siamese_snunet32": ("siamese_unet_snunet", {"architecture": "snunet"}),
}
HEADLINE = ("unet++_resnext50", "siamese_seresnext50")


def _with_models(*networks: str) -> dict[str, Any]:
    models = dict(NETWORKS[network] for network in networks)
    return {**_RECIPE, "train": {**_RECIPE["train"], "models": models}}


PRESETS: dict[str, dict[str, Any]] = {
    ORIGINAL: _RECIPE,
    f"{ORIGINAL}/headline": _with_models(*HEADLINE),
    **{f"{ORIGINAL}/{network}": _with_models(network) for network in NETWORKS},
}
