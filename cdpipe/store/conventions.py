"""Where a group's pixels lie, by the conventions of Zarr for spatial coordinates and coordinate reference systems.

Sources: https://github.com/zarr-conventions/spatial and https://github.com/zarr-conventions/proj, both v0.1. What they
say, CF's grid mapping says, too: each is read by software that does not know the other.
"""

from typing import Any

from cdpipe.geo.crs import crs_name
from cdpipe.geo.grid import Grid

_HOME = "zarr-conventions"
_PROJ, _SPATIAL = (
    {
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/{_HOME}/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/{_HOME}/{name}/blob/v0.1/README.md",
        "name": name,
        "description": description,
    }
    for name, uuid, description in (
        (
            "proj",
            "f17cb550-5864-4468-aeb7-f3180cfb622f",
            "Coordinate reference system information for geospatial data",
        ),
        ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    )
)


def group_place(grid: Grid) -> dict[str, Any]:
    """Attributes of a group whose arrays lie on one grid; none without a georeference.

    They stand at the group alone: arrays with lists of objects among their attributes cannot be written as netCDF.
    """
    if not grid.placed:
        return {}
    rows, cols = grid.outline(2)
    x, y = grid.xy(rows, cols)
    name = crs_name(grid.crs)
    coded = name.startswith("EPSG:")
    return {
        "zarr_conventions": [_PROJ, _SPATIAL] if coded else [_SPATIAL],
        **({"proj:code": name} if coded else {}),
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [float(bound) for bound in (x.min(), y.min(), x.max(), y.max())],
        "spatial:transform_type": "affine",
        "spatial:transform": list(grid.transform),
        "spatial:shape": list(grid.shape),
        "spatial:registration": "pixel",
    }
