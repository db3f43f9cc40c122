"""How much memory a training takes, told from the network's shapes, so that several side by side fit a machine."""

from typing import Any

from cdpipe.models.networks import build_model
from cdpipe.training.job import TrainJob

PROCESS = 2**30  # of Python, torch and the samples that wait
COPIES = 5  # of the weights: themselves, gradients, two moments of the optimizer, their average
HEADROOM = 1.5  # gradients of activations and workspaces; so in float32 measured peaks are 71 to 89 % of what is told


def training_memory(job: TrainJob, workers: int) -> int:
    """Bytes that a worker takes at most, an upper estimate: what autograd keeps of one batch, and the weights' copies.

    The network is built and run on the device "meta", which takes neither memory nor time.

    Args:
        job: A job whose network can be built, see :func:`cdpipe.training.plan.check_buildable`.
        workers: How many share a global batch.
    """
    import torch
    from torch.autograd.graph import saved_tensors_hooks

    kept: dict[Any, int] = {}

    def keep(values: torch.Tensor) -> torch.Tensor:
        storage = values.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # noqa: SLF001 (meta tensors have no other identity)
        alive.append(values)  # or another could be given its identity
        return values

    alive: list[torch.Tensor] = []
    samples, patch = max(job.options.global_batch // workers, 2), job.options.patch  # two: batch norm refuses one
    with torch.device("meta"), saved_tensors_hooks(keep, lambda values: values):
        network = build_model(job.architecture, **job.built).train()
        network(torch.empty(samples, job.recipe.channels, patch, patch))
    weights = sum(int(each.nbytes) for each in network.state_dict().values())
    return PROCESS + COPIES * weights + int(HEADROOM * sum(kept.values()))
