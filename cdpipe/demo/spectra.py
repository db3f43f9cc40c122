"""What the ground of a made-up place reflects: every place draws its own soils, plants, waters and roofs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spectra = NDArray[np.float64]  # (n, 4): reflectance in red, green, blue and near infrared, 0 to 1

# Ends that the places' own materials lie between, roughly as spectral libraries have them.
_SOILS = np.array(
    [(0.09, 0.07, 0.05, 0.13), (0.17, 0.12, 0.08, 0.25), (0.22, 0.11, 0.07, 0.30),
     (0.34, 0.26, 0.18, 0.42), (0.40, 0.34, 0.28, 0.45), (0.14, 0.12, 0.10, 0.17)]
)  # fmt: skip
_PLANTS = np.array([(0.035, 0.06, 0.03, 0.42), (0.05, 0.08, 0.04, 0.35), (0.04, 0.07, 0.035, 0.50)])
_STRAW = np.array([(0.18, 0.13, 0.09, 0.28), (0.22, 0.16, 0.11, 0.32), (0.13, 0.10, 0.07, 0.20)])
_LEAVES = np.array([(0.03, 0.045, 0.025, 0.28), (0.025, 0.035, 0.02, 0.20), (0.035, 0.05, 0.03, 0.35)])
_TWIGS = np.array([(0.08, 0.07, 0.05, 0.17), (0.09, 0.08, 0.06, 0.20), (0.06, 0.065, 0.045, 0.20)])
_WATERS = np.array(
    [(0.03, 0.05, 0.05, 0.01), (0.05, 0.08, 0.07, 0.02), (0.10, 0.12, 0.09, 0.04),
     (0.025, 0.035, 0.03, 0.015), (0.16, 0.14, 0.10, 0.08), (0.28, 0.25, 0.18, 0.13)]
)  # fmt: skip
_GREY = np.array([1.06, 1.03, 0.97, 1.10])
_COLOURS = np.array(
    [(0.24, 0.12, 0.09, 0.30), (0.14, 0.10, 0.08, 0.19), (0.18, 0.26, 0.32, 0.22), (0.25, 0.2, 0.16, 0.3)]
)
ROOFS = 7  # kinds of them
_DARKEST, _BRIGHTEST = 0.004, 1.1


@dataclass(frozen=True)
class Materials:
    """The materials of one place.

    Attributes:
        rng: The place's source of randomness.
        wild: Deviation of the logarithm by which pieces of one material differ.
        soil, plants, straw, leaves, twigs, water: (4,) spectra.
        roofs: (ROOFS,) how frequent each kind of roof is.
    """

    rng: np.random.Generator
    wild: float
    soil: Spectra
    plants: Spectra
    straw: Spectra
    leaves: Spectra
    twigs: Spectra
    water: Spectra
    roofs: NDArray[np.float64]


def draw_materials(rng: np.random.Generator) -> Materials:
    """Draw a place's materials; in one of five places they are wilder than nature is."""

    def mixed(ends: Spectra, evenness: float) -> Spectra:
        return np.asarray(rng.dirichlet(np.full(len(ends), evenness)) @ ends)

    return Materials(
        rng,
        wild=0.35 if rng.random() < 0.2 else 0.10,
        soil=mixed(_SOILS, 0.35),
        plants=mixed(_PLANTS, 1),
        straw=mixed(_STRAW, 1),
        leaves=mixed(_LEAVES, 1),
        twigs=mixed(_TWIGS, 1),
        water=mixed(_WATERS, 0.5),
        roofs=rng.dirichlet(np.full(ROOFS, 0.6)),
    )


def pieces(materials: Materials, base: Spectra, count: int, more: float = 0.0) -> Spectra:
    """Return `count` pieces of a material, which differ by `more` than they do anyway."""
    rng, wild = materials.rng, materials.wild
    change = rng.normal(0, wild + more, (count, 1)) + rng.normal(0, wild / 2, (count, 4))
    return np.clip(np.broadcast_to(base, (count, 4)) * np.exp(change), _DARKEST, _BRIGHTEST)


def soils(materials: Materials, count: int, brightness: float = 1.0) -> Spectra:
    """Return pieces of bare soil."""
    return pieces(materials, materials.soil * brightness, count, 0.12)


def crops(materials: Materials, vigour: NDArray[np.float64]) -> Spectra:
    """Return fields, each as green as `vigour` (n,) says, from 0, bare or straw, to 1."""
    green = vigour[:, None]
    bare = np.where(materials.rng.random((len(vigour), 1)) < 0.3, materials.straw, materials.soil)
    return pieces(materials, bare * (1 - green) + materials.plants * green, len(vigour), 0.05)


def woods(materials: Materials, count: int, leaf: float) -> Spectra:
    """Return pieces of wood, of bare twigs at `leaf` 0, in full leaf at 1."""
    return pieces(materials, materials.twigs * (1 - leaf) + materials.leaves * leaf, count)


def asphalt(materials: Materials, count: int) -> Spectra:
    """Return pieces of dark or worn paving."""
    rng = materials.rng
    grey = rng.uniform(0.06, 0.16, (count, 1)) * np.where(rng.random((count, 1)) < 0.25, 1.8, 1)
    return pieces(materials, grey * _GREY, count)


def concrete(materials: Materials, count: int) -> Spectra:
    """Return pieces of bright paving."""
    return pieces(materials, materials.rng.uniform(0.16, 0.45, (count, 1)) * _GREY, count)


def roofs(materials: Materials, count: int, own: float = 0.6) -> Spectra:
    """Return roofs: a share `own` of the kinds that the place prefers, others of any kind."""
    rng = materials.rng
    shares = own * materials.roofs + (1 - own) * rng.dirichlet(np.ones(ROOFS))
    kind = rng.choice(ROOFS, count, p=shares / shares.sum())
    bright = rng.random((count, 1))
    greys = [(0.12 + 0.3 * bright) * _GREY, (0.4 + 0.4 * bright) * _GREY, (0.05 + 0.07 * bright) * _GREY]
    colours = [(0.7 + 0.6 * bright) * colour for colour in _COLOURS]
    table = np.stack([np.broadcast_to(each, (count, 4)) for each in (*greys, *colours)], axis=1)
    return pieces(materials, table[np.arange(count), kind], count)


def waters(materials: Materials) -> Spectra:
    """Return one water at both dates, (1, 2, 4); at half of the places its colour changes."""
    rng = materials.rng
    first = pieces(materials, materials.water, 1, 0.1)
    other = rng.dirichlet(np.full(len(_WATERS), 0.5)) @ _WATERS
    second = first if rng.random() < 0.5 else pieces(materials, other, 1, 0.1)
    return np.stack([first, second], axis=1)
