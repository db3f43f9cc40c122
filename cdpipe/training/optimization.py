"""How weights learn: the optimizer, its learning rate step by step, and the average of the weights.

All of it depends on the step's number alone, so that a continued training needs to know nothing else.
"""

import math
from typing import Any

import torch
from torch import nn

from cdpipe.config.train import Train

FIRST, LAST = 25.0, 1e4  # one-cycle starts at the highest rate over the first, and ends at its start over the second
RATE = "rate"  # what a group's learning rate is times the network's
MOMENTUM = (0.95, 0.85)  # Adam's first beta at its lowest and highest rate, in one-cycle


def make_optimizer(network: nn.Module, options: Train, encoder_rate: float = 1.0) -> torch.optim.Optimizer:
    """Adam or AdamW; with weight decay, but not on norms and biases, which are vectors.

    Args:
        network: What learns.
        options: The configuration's ``train``.
        encoder_rate: What the learning rate of the network's ``encoder`` is times the others'.
    """
    parts = [(list(network.parameters()), 1.0)]
    if encoder_rate != 1:
        encoder = list(network.get_submodule("encoder").parameters())
        own = set(map(id, encoder))
        parts = [
            ([weights for weights in network.parameters() if id(weights) not in own], 1.0),
            (encoder, encoder_rate),
        ]
    groups: list[dict[str, Any]] = []
    for parameters, rate in parts:
        share = {} if rate == 1 else {RATE: rate}
        if options.weight_decay:
            matrices = [weights for weights in parameters if weights.ndim > 1]
            vectors = [weights for weights in parameters if weights.ndim <= 1]
            groups.append({"params": matrices, "weight_decay": options.weight_decay, **share})
            groups.append({"params": vectors, "weight_decay": 0.0, **share})
        else:
            groups.append({"params": parameters, "weight_decay": 0.0, **share})
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adam":
        return torch.optim.Adam(groups, lr=options.learning_rate)
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)  # in a third of the time


def set_rate(optimizer: torch.optim.Optimizer, options: Train, step: int, steps: int) -> None:
    """Set what holds for a step.

    Args:
        optimizer: Of :func:`make_optimizer`.
        options: The configuration's ``train``.
        step: Its number, from 0, in the whole training.
        steps: Of an epoch.
    """
    rate = learning_rate(options, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RATE, 1.0)
        if options.schedule == "one_cycle":
            group["betas"] = (_cycle(options, step, steps, MOMENTUM[0], MOMENTUM[1], MOMENTUM[0]), group["betas"][1])


def learning_rate(options: Train, step: int, steps: int) -> float:
    """The learning rate of a step, see :func:`set_rate`.

    ``one_cycle`` is Smith and Topin's (arxiv.org/abs/1708.07120), as torch's ``OneCycleLR`` has it; ``cosine`` rises
    linearly and falls to 0 along half a cosine (arxiv.org/abs/1608.03983).
    """
    highest = options.learning_rate
    if options.schedule == "exponential":
        return highest * options.decay ** (step // steps)
    if options.schedule == "one_cycle":
        return _cycle(options, step, steps, highest / FIRST, highest, highest / FIRST / LAST)
    total = options.epochs * steps
    rising = round(options.warmup * total)
    if step < rising:
        return highest * (step + 1) / rising
    return highest * (1 + math.cos(math.pi * (step - rising) / (total - rising))) / 2


def _cycle(options: Train, step: int, steps: int, low: float, high: float, end: float) -> float:
    """Along half a cosine from low to high while it warms up, then along another to the end."""
    last = options.epochs * steps - 1
    top = options.warmup * (last + 1) - 1
    if step <= top:
        return _between(low, high, step / top) if top > 0 else high
    return _between(high, end, (step - max(top, 0.0)) / (last - max(top, 0.0)) if last > 0 else 0.0)


def _between(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move an average of the weights towards those after a step.

    Early steps weigh more, ``(1 + n) / (10 + n)`` of the average staying after the n-th, so that random first weights
    are soon forgotten. Running statistics of norms are averaged with the weights: to compute them anew would take
    another pass over samples at every look, and an average as short as this one strays little from its weights.

    Args:
        average: A network of the same architecture.
        network: The one that learns.
        decay: What stays of the average in the long run.
        step: Number of the step that was just done, from 0.
    """
    count = step + 1
    share = 1 - min(decay, (1 + count) / (10 + count))
    old, new = (dict(each.state_dict()) for each in (average, network))
    smooth = [name for name, values in new.items() if values.is_floating_point()]
    torch._foreach_lerp_([old[name] for name in smooth], [new[name] for name in smooth], share)
    for name in new.keys() - set(smooth):
        old[name].copy_(new[name])


def clip_gradients(network: nn.Module, norm: float) -> None:
    """Shorten the gradient to a norm where it is longer; 0 leaves it as it is."""
    if norm:
        nn.utils.clip_grad_norm_(network.parameters(), norm)
