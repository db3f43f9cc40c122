"""Weights of ResNets that torchgeo lists: where they lie, their bands and the scale of their input.

After torchgeo 0.8.1, torchgeo/models/resnet.py (https://github.com/torchgeo/torchgeo, MIT), which is not needed: its
list is all that it would add. Sentinel-2: SSL4EO-S12 (arxiv.org/abs/2211.07044, CC-BY-4.0), DINO and MoCo; DeCUR
(arxiv.org/abs/2309.05300), SoftCon (arxiv.org/abs/2405.20462), CLOSP (arxiv.org/abs/2507.10403), SeCo
(arxiv.org/abs/2103.16607), SeCo-Eco (arxiv.org/abs/2504.18256). Landsat: SSL4EO-L (arxiv.org/abs/2306.09424).

The last eight letters of a file's name are the first of its SHA-256 (torchgeo pull request 1105).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

Band = tuple[str | None, float, float]  # cdpipe's name, and mean and deviation in what the weights were trained on


@dataclass(frozen=True, slots=True)
class Published:
    """One of the list.

    Attributes:
        encoder: Name of the encoder that the weights are of.
        repository: On the Hugging Face hub.
        revision: Commit of it.
        file: Name in it.
        bands: Of the first kernel, in order.
    """

    encoder: str
    repository: str
    revision: str
    file: str
    bands: tuple[Band, ...]

    @property
    def sha256(self) -> str:
        """How the file's hash begins; empty where its name does not say it."""
        digest = self.file.removesuffix(".pth").rpartition("-")[2]
        return digest if len(digest) == 8 and set(digest) <= set("0123456789abcdef") else ""

    @property
    def url(self) -> str:
        """Where a browser gets it."""
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{self.file}"


# Mean and deviation of Sentinel-2's bands in SSL4EO-S12: reflectance at the top of the atmosphere, times 10 000
# (torchgeo's _mean_s2 and _std_s2).
S2 = {
    "coastal": (1612.9, 791.0),
    "blue": (1397.6, 854.3),
    "green": (1322.3, 878.7),
    "red": (1373.1, 1144.9),
    "rededge071": (1561.0, 1127.5),
    "rededge075": (2108.4, 1164.2),
    "rededge078": (2390.7, 1276.0),
    "nir": (2318.7, 1249.5),
    "nir08": (2581.0, 1345.9),
    "nir09": (837.7, 577.5),
    "cirrus": (22.0, 47.5),
    "swir16": (2195.2, 1340.0),
    "swir22": (1537.4, 1142.9),
}


def _reflectance(names: Sequence[str | None], one: float = 1.0) -> tuple[Band, ...]:
    """Bands in reflectance, of which ``one`` is 1; without a name what has no figures."""
    figures = {name: (mean / 1e4 / one, deviation / 1e4 / one) for name, (mean, deviation) in S2.items()}
    return tuple((name, *figures[name]) if name else (None, 0.0, 1.0) for name in names)


def _standardised(names: Sequence[str]) -> tuple[Band, ...]:
    return tuple((name, 0.0, 1.0) for name in names)


_ALL, _RGB = tuple(S2), ("red", "green", "blue")
_NO_CIRRUS = tuple(name for name in _ALL if name != "cirrus")
_NDVI = (*_ALL[1:9], None)  # the last is an index, not a band
# Landsat's were scaled from reflectances between 0 and 0.4 (top of the atmosphere) or 0.3 (surface) to 0 and 1
# (torchgeo's experiments/ssl4eo/landsat/compress_*.sh). There are no figures of them; Sentinel-2's at the same kind of
# places stand in. Thermal and panchromatic bands have none at all.
_TM_TOA = _reflectance(("blue", "green", "red", "nir08", "swir16", None, "swir22"), 0.4)
_ETM_TOA = _reflectance(("blue", "green", "red", "nir08", "swir16", None, None, "swir22", None), 0.4)
_ETM_SR = _reflectance(("blue", "green", "red", "nir08", "swir16", "swir22"), 0.3)
_OLI = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
_OLI_TOA = _reflectance((*_OLI, None, "cirrus", None, None), 0.4)
_OLI_SR = _reflectance(_OLI, 0.3)

_LANDSAT = ("torchgeo/ssl4eo_landsat", "1c88bb51b6e17a21dde5230738fa38b74bd74f76")
_CLOSP = ("DarthReca/CLOSP-Visual", "3bb8677c21dac56bea2dd7baa08d7871272db440")
_SOFTCON = ("wangyi111/softcon", "62ff465b2e7467dbfc70758ec1e9d08ab87fc46b")


def _landsat(encoder: str, hashes: Mapping[str, tuple[tuple[Band, ...], str, str]]) -> dict[str, Published]:
    return {
        f"LANDSAT_{product}_{method}".upper(): Published(
            encoder, *_LANDSAT, f"{encoder}_landsat_{product}_{method}-{digest}.pth", bands
        )
        for product, (bands, *digests) in hashes.items()
        for method, digest in zip(("moco", "simclr"), digests, strict=True)
    }


def _own(encoder: str, product: str, revision: str, digest: str, bands: tuple[Band, ...]) -> Published:
    """Weights with a repository of their own."""
    name = f"{encoder}_sentinel2_{product}"
    return Published(encoder, f"torchgeo/{name}", revision, f"{name}-{digest}.pth", bands)


_RESNET18 = {
    **_landsat(
        "resnet18",
        {
            "tm_toa": (_TM_TOA, "1c691b4f", "d2d38ace"),
            "etm_toa": (_ETM_TOA, "bb88689c", "4d813f79"),
            "etm_sr": (_ETM_SR, "4f078acd", "8e8543b4"),
            "oli_tirs_toa": (_OLI_TOA, "a3002f51", "b0635cc6"),
            "oli_sr": (_OLI_SR, "660e82ed", "7bced5be"),
        },
    ),
    "SENTINEL2_ALL_MOCO": _own(
        "resnet18", "all_moco", "5b8cddc9a14f3844350b7f40b85bcd32aed75918", "59bfdff9", _reflectance(_ALL)
    ),
    "SENTINEL2_RGB_MOCO": _own(
        "resnet18", "rgb_moco", "e1c032e7785fd0625224cdb6699aa138bb304eec", "e3a335e3", _reflectance(_RGB)
    ),
    "SENTINEL2_RGB_SECO": _own(
        "resnet18", "rgb_seco", "f8dcee692cf7142163b55a5c197d981fe0e717a0", "cefca942", _standardised(_RGB)
    ),
}
_RESNET50 = {
    **_landsat(
        "resnet50",
        {
            "tm_toa": (_TM_TOA, "ba1ce753", "a1c93432"),
            "etm_toa": (_ETM_TOA, "e9a84d5a", "70b5575f"),
            "etm_sr": (_ETM_SR, "1266cde3", "e5d185d7"),
            "oli_tirs_toa": (_OLI_TOA, "de7f5e0f", "030cebfe"),
            "oli_sr": (_OLI_SR, "ff580dad", "94f78913"),
        },
    ),
    "SENTINEL2_ALL_CLOSP": Published("resnet50", *_CLOSP, "closp-rn_s2_encoder-183922a5.pth", _reflectance(_ALL)),
    "SENTINEL2_ALL_GEOCLOSP": Published("resnet50", *_CLOSP, "geoclosp-rn_s2_encoder-94c37f4a.pth", _reflectance(_ALL)),
    "SENTINEL2_ALL_DECUR": Published(
        "resnet50",
        "torchgeo/decur",
        "eba7ae5945d482a4319be046d34b552db5dd9950",
        "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth",
        _reflectance(_ALL),
    ),
    "SENTINEL2_ALL_DINO": _own(
        "resnet50", "all_dino", "d7f14bf5530d70ac69d763e58e77e44dbecfec7c", "d6c330e9", _reflectance(_ALL)
    ),
    "SENTINEL2_ALL_MOCO": _own(
        "resnet50", "all_moco", "da4f3c9dbe09272eb902f3b37f46635fa4726879", "df8b932e", _reflectance(_ALL)
    ),
    "SENTINEL2_ALL_SOFTCON": Published("resnet50", *_SOFTCON, "B13_rn50_softcon.pth", _standardised(_ALL)),
    "SENTINEL2_ALL_SECO_ECO": Published(
        "resnet50",
        "torchgeo/seco-eco",
        "aea279ea46572cfca5876ac1f9d8d8595fcdeb3b",
        "resnet50_sentinel2_all_seco_eco-90ec322f.pth",
        _reflectance(_NO_CIRRUS),
    ),
    "SENTINEL2_ALL_NDVI_SECO_ECO": Published(
        "resnet50",
        "torchgeo/seco-eco-ndvi",
        "44fae184c63b73e15a32be816e023957dc4c56c1",
        "resnet50_sentinel2_all_ndvi_seco_eco-65292b83.pth",
        _reflectance(_NDVI),
    ),
    "SENTINEL2_RGB_MOCO": _own(
        "resnet50", "rgb_moco", "efd9723b59a88e9dc1420dc1e96afb25b0630a3c", "2b57ba8b", _reflectance(_RGB)
    ),
    "SENTINEL2_RGB_SECO": _own(
        "resnet50", "rgb_seco", "fbd07b02a8edb8fc1035f7957160deed4321c145", "018bf397", _standardised(_RGB)
    ),
}

# By torchgeo's names.
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        **{f"ResNet18_Weights.{name}": each for name, each in _RESNET18.items()},
        **{f"ResNet50_Weights.{name}": each for name, each in _RESNET50.items()},
    }
)
