"""What a country, a continent and the land surface cost a month, worked out from measured rates: docs/scaling.md.

Prints the tables of that page. Nothing is measured here: the rates are the first table, each with where it is from.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cdpipe.geo.tilings import CHUNK, PatchGrid, block_keys, block_window, count_tiles, patch_stride

AREAS = {"France": 550_000, "Africa": 30_400_000, "all land": 149_000_000}  # km2
PIXEL, TILE, TILE_STEP = 10, 10_980, 10_000  # metres; pixels of a Sentinel-2 tile, and from one to the next
PATCH, BLOCK, OVERLAP, VIEWS = 256, 2048, 0.25, 8
BANDS, DATES, BYTES = 4, 2, 2
MODELS = 2
ARRAYS_READ = 3  # both dates, and what was observed


@dataclass(frozen=True)
class Rate:
    """An input: what it is, its value and unit, and where it is from."""

    what: str
    value: float
    unit: str
    origin: str


# The only numbers to change when others are measured.
RATES = {
    "unet_gpu": Rate("UNet++ (resnext50), patches in 8 views, one H200, torch bfloat16", 175, "patches/s", "measured"),
    "siamese_gpu": Rate("Siamese (seresnext50), likewise", 247, "patches/s", "measured"),
    "unet_float32": Rate("UNet++, a patch in 8 views, torch float32", 13.1, "core-s", "measured, both of 2 cores busy"),
    "siamese_float32": Rate("Siamese, likewise", 6.0, "core-s", "measured, likewise"),
    "unet_bf16": Rate("UNet++, a patch in 8 views, OpenVINO bfloat16", 3.5, "core-s", "measured, likewise"),
    "siamese_bf16": Rate("Siamese, likewise", 1.7, "core-s", "measured, likewise"),
    "unet_int8": Rate("UNet++, a patch in 8 views, OpenVINO int8", 1.8, "core-s", "measured, likewise"),
    "siamese_int8": Rate("Siamese, likewise", 1.0, "core-s", "measured, likewise"),
    "ingest": Rate("ingest from deflate GeoTIFFs, pixels of both dates", 215, "MB/core-s", "measured, without warping"),
    "data": Rate(
        "all of prediction but networks", 500, "patches/core-s", "measured, with a model that returns its input"
    ),
    "cog_uint8": Rate("GeoTIFF of change", 59, "MB/core-s", "measured, read and compared"),
    "cog_float32": Rate("GeoTIFF of probability", 141, "MB/core-s", "measured, GDAL alone"),
    "ratio": Rate("compression of imagery in the store", 1.71, "", "measured"),
    "result_ratio": Rate("compression of probabilities and change", 1.5, "", "assumed"),
    "schedule": Rate("blocks that one driver schedules", 3000, "blocks/s", "measured, ingest; prediction 9,800"),
}


def value(name: str) -> float:
    """An input's number."""
    return RATES[name].value


def main() -> None:
    """Print the tables."""
    print(render())


def render() -> str:
    """The tables of docs/scaling.md, as Markdown."""
    inputs = [(each.what, f"{each.value:g} {each.unit}".strip(), each.origin) for each in RATES.values()]
    tables = (
        ("Inputs", ("what", "value", "from"), inputs),
        ("A Sentinel-2 tile, both models, eight views", ("what", "amount"), list(tile_rows())),
        ("A month of one pair a place at 10 m", ("", *AREAS), list(area_rows())),
        ("One block through each stage", ("stage", "it takes", "blocks a day of one"), list(stage_rows())),
        ("What to turn", ("instead of the default", "GPU time"), list(knob_rows())),
    )
    return "\n\n".join(f"## {title}\n\n{table(head, rows)}" for title, head, rows in tables)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Tile:
    """Counts of one Sentinel-2 tile: blocks, patches computed and useful, and pixels and chunks read by a model."""

    blocks: int
    computed: int
    useful: int
    read: int
    requests: int


def count_tile(patch: int = PATCH, block: int = BLOCK, overlap: float = OVERLAP) -> Tile:
    """Count what prediction lists of a tile."""
    patch_grid = PatchGrid((TILE, TILE), patch, patch_stride(patch, overlap))
    computed = read = requests = 0
    keys = block_keys("p", patch_grid.shape, block)
    for key in keys:
        window = block_window(key, patch_grid.shape, block)
        halo = patch_grid.halo(window)
        computed += len(patch_grid.touching(window))
        read += halo.height * halo.width
        chunks = math.prod(
            count_tiles(stop, CHUNK) - start // CHUNK
            for start, stop in ((halo.row, halo.stop_row), (halo.col, halo.stop_col))
        )
        own = count_tiles(window.height, CHUNK) * count_tiles(window.width, CHUNK)
        shards = math.prod(
            count_tiles(stop, block) - start // block
            for start, stop in ((halo.row, halo.stop_row), (halo.col, halo.stop_col))
        )
        requests += 1 + chunks - own + shards - 1  # its own shard at once, of others the index and single chunks
    return Tile(len(keys), computed, len(patch_grid.origins(0)) * len(patch_grid.origins(1)), read, requests)


def tiles(area: float) -> float:
    """Sentinel-2 tiles over an area in km2; tiles lap over each other."""
    return area * 1e6 / (TILE_STEP * PIXEL) ** 2


def gpu_seconds(patches: float) -> float:
    """GPU time of patches in all views by both models."""
    return patches * (1 / value("unet_gpu") + 1 / value("siamese_gpu"))


def core_seconds(patches: float, precision: str) -> float:
    """CPU time of patches in all views by both models."""
    return patches * (value(f"unet_{precision}") + value(f"siamese_{precision}"))


def source_bytes() -> float:
    """Pixels of a tile's both dates, not compressed."""
    return float(TILE**2 * BANDS * DATES * BYTES)


def tile_core_seconds() -> float:
    """CPU time of a tile beside the networks: ingest, prediction's reading, blending and writing, rasters."""
    ingest = source_bytes() / (value("ingest") * 1e6)
    data = MODELS * count_tile().computed / value("data")
    return ingest + data + TILE**2 / (value("cog_uint8") * 1e6) + 4 * TILE**2 / (value("cog_float32") * 1e6)


def tile_bytes() -> tuple[float, float]:
    """Bytes that a tile's workers read and write; sources are read twice, once for their hashes."""
    counts = count_tile()
    imagery, pixels = source_bytes() / value("ratio"), TILE**2
    of_models = 4 * MODELS * pixels / value("result_ratio")
    of_ensemble = 5 * pixels / value("result_ratio")
    read = 2 * imagery + MODELS * imagery * counts.read / pixels + of_models + 2 * of_ensemble
    return read, imagery + of_models + 2 * of_ensemble


def tile_requests() -> tuple[float, float]:
    """Reads and writes of stored objects, parts of shards included, records too."""
    counts = count_tile()
    reads = MODELS * ARRAYS_READ * counts.requests + (MODELS + 2) * counts.blocks
    writes = counts.blocks * (ARRAYS_READ + 1 + 2 * MODELS + 3)
    return reads, writes


def tile_rows() -> Iterator[tuple[str, str]]:
    """What one tile is made of."""
    counts, (read, written), (reads, writes) = count_tile(), tile_bytes(), tile_requests()
    yield "blocks of 2048²", str(counts.blocks)
    yield "patches of 256² computed, by each model", f"{counts.computed:,}"
    yield "of them useful", f"{counts.useful:,} (computed/useful {counts.computed / counts.useful:.2f})"
    yield "forwards", f"{counts.computed * MODELS * VIEWS:,}"
    yield "GPU", f"{gpu_seconds(counts.computed):.0f} s"
    for name, precision in (("torch float32", "float32"), ("OpenVINO bfloat16", "bf16"), ("OpenVINO int8", "int8")):
        yield f"or networks on CPUs, {name}", f"{core_seconds(counts.computed, precision) / 3600:.1f} core-h"
    yield "CPU beside the networks", f"{tile_core_seconds():.0f} core-s"
    yield "read, written", f"{read / 1e9:.1f} GB, {written / 1e9:.1f} GB"
    yield "reads, writes of stored objects", f"{reads:,.0f}, {writes:,.0f}"


def area_rows() -> Iterator[tuple[str, ...]]:
    """What areas cost a month."""
    counts, (read, written), (reads, writes) = count_tile(), tile_bytes(), tile_requests()
    amounts: dict[str, tuple[str, Callable[[float], float]]] = {
        "area, km²": ("{:,.0f}", lambda area: area),
        "Sentinel-2 tiles": ("{:,.0f}", tiles),
        "blocks": ("{:,.0f}", lambda area: tiles(area) * counts.blocks),
        "GPU-hours": ("{:,.0f}", lambda area: tiles(area) * gpu_seconds(counts.computed) / 3600),
        "GPUs, to be done in a day": ("{:,.1f}", lambda area: tiles(area) * gpu_seconds(counts.computed) / 86400),
        "core-hours beside them": ("{:,.0f}", lambda area: tiles(area) * tile_core_seconds() / 3600),
        "or core-hours without GPUs, bfloat16": (
            "{:,.0f}",
            lambda area: tiles(area) * (core_seconds(counts.computed, "bf16") + tile_core_seconds()) / 3600,
        ),
        "read, TB": ("{:,.1f}", lambda area: tiles(area) * read / 1e12),
        "written, TB": ("{:,.1f}", lambda area: tiles(area) * written / 1e12),
        "reads of stored objects, million": ("{:,.1f}", lambda area: tiles(area) * reads / 1e6),
        "writes of stored objects, million": ("{:,.2f}", lambda area: tiles(area) * writes / 1e6),
        "one driver's scheduling, minutes": (
            "{:,.1f}",
            lambda area: tiles(area) * counts.blocks * 2 / value("schedule") / 60,
        ),
    }
    for name, (form, amount) in amounts.items():
        yield (name, *(form.format(amount(area)) for area in AREAS.values()))


def stage_rows() -> Iterator[tuple[str, str, str]]:
    """How long a block keeps one of each."""
    counts = count_tile()
    each = {
        "networks, a GPU": gpu_seconds(counts.computed) / counts.blocks,
        "networks, a core in bfloat16": core_seconds(counts.computed, "bf16") / counts.blocks,
        "the rest, a core": tile_core_seconds() / counts.blocks,
        "scheduling, the one driver": 2 / value("schedule"),
    }
    for name, seconds in each.items():
        yield name, f"{seconds:.3g} s", f"{86400 / seconds:,.0f}"


def knob_rows() -> Iterator[tuple[str, str]]:
    """GPU time against the default's."""
    usual = count_tile().computed
    choices = {
        "no test-time augmentation": 1 / VIEWS,
        "the Siamese model alone": 1 / value("siamese_gpu") / gpu_seconds(1),
        "overlap 0": count_tile(overlap=0.0).computed / usual,
        "overlap 0.5": count_tile(overlap=0.5).computed / usual,
        "blocks of 4096²": count_tile(block=2 * BLOCK).computed / usual,
        "patches of 512², by their pixels": 4 * count_tile(patch=2 * PATCH).computed / usual,
        "half of the area not observed": 0.5,
    }
    for name, share in choices.items():
        yield name, f"{share:.2f}×"


if __name__ == "__main__":
    main()
