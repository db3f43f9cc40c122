"""Products of pairs that are made, by tasks, where they are not there as they ought to be, and only then."""

from collections.abc import Mapping

from cdpipe.runs.products import Product, is_intact, write_product
from cdpipe.runs.run import Run


def ensure_made(run: Run, stage: str, products: Mapping[str, Product]) -> set[str]:
    """Make what is missing, damaged or of other ingredients; what goes wrong with a pair is that pair's failure.

    Args:
        run: The run.
        stage: What a step's title and the reason of a failure begin with.
        products: By pair.

    Returns:
        The pairs whose product is there.
    """
    missing = [(pair_id, product) for pair_id, product in products.items() if not is_intact(product)]
    kept = products.keys() - {pair_id for pair_id, _ in missing}
    if not missing:
        return kept
    from cdpipe.cluster.tasks import map_every_pair

    return kept | map_every_pair(run, f"{stage}: pairs", stage, write_product, missing).keys()
