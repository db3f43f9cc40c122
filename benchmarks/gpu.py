"""All that someone with a GPU runs, in about a quarter of an hour; prints a table in Markdown.

- Patches a second of both large networks with eight views, in float32, TF32 and bfloat16, as `cdpipe predict` calls
  them, with the batch that it would probe. Networks have random weights, which bears on no speed.
- How far the probabilities of each are from those of a CPU in float32, at most.
- Patches a second in bfloat16 without `channels_last`, and with `torch.compile`: whether the choices are right.
- The share of the time in which the GPU is busy during a real `cdpipe predict`, by `nvidia-smi` five times a second,
  from the first moment that it is to the last. Target: 90 %.
- Training samples a second with automatic mixed precision, without reading them: forward, loss, backward, step.

The prediction is the command that users run, with Ray, store and rasters; that part has not met a GPU yet, the others
have.

`--device cpu --quick` runs the same code on patches of 64 pixels, to prove that it works.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_project import make_project, run
from numpy.typing import NDArray

from cdpipe.inference.patches import Execution, Forward
from cdpipe.inference.torch import forward_of, make_forward
from cdpipe.models.networks import build_model, input_kind
from cdpipe.runs.members import choose_batch
from cdpipe.training.loss import dice_bce

MODELS = ("unetplusplus", "siamese_seresnext50")
PRECISIONS = ("float32", "tf32", "bfloat16")
SAMPLE_MS = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small patches, few rounds")
    parser.add_argument("--side", type=int, default=8192, help="side of the scene that is predicted, in pixels")
    options = parser.parse_args()
    patch, rounds, side, samples = (64, 1, 150, 2) if options.quick else (256, 20, options.side, 16)
    rows = [("device", describe(options.device)), ("torch", torch.__version__)]
    for name in MODELS:
        for precision in PRECISIONS:
            if options.device == "cpu" and precision == "tf32":
                continue  # there is none
            batch, rate, far = measure_forward(name, precision, options.device, patch, rounds)
            rows.append((f"{name}, {precision}, batch {batch}, 8 views: patches of {patch}²/s", f"{rate:.2f}"))
            rows.append((f"{name}, {precision}: probabilities are from a CPU's in float32 at most", f"{far:.1e}"))
        for choice, rate in measure_choices(name, options.device, patch, rounds, batch).items():
            rows.append((f"{name}, bfloat16, batch {batch}, {choice}: patches of {patch}²/s", f"{rate:.2f}"))
        rate = measure_training(name, options.device, patch, rounds, samples)
        rows.append((f"{name}, training, bfloat16, batch {samples}: samples of {patch}²/s", f"{rate:.1f}"))
        print(*rows, sep="\n", file=sys.stderr, flush=True)
    rows += measure_predict(options.device, patch, side)
    print("\n".join(["| what | measured |", "| --- | ---: |", *(f"| {what} | {found} |" for what, found in rows)]))


def describe(device: str) -> str:
    """Name and driver of the device."""
    return "CPU" if device == "cpu" else query("name,driver_version,memory.total").splitlines()[0]


def query(fields: str) -> str:
    """What nvidia-smi says of every GPU."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def measure_forward(name: str, precision: str, device: str, patch: int, rounds: int) -> tuple[int, float, float]:
    """The batch that suits a network, patches a second with it, and how far its probabilities are from a CPU's."""
    half = "bfloat16" if precision == "bfloat16" else "float32"
    torch.manual_seed(0)
    network = build_model(name)
    few = draw_patches(name, 2, patch)
    right = make_forward(deepcopy(network), Execution("d4", "float32", "cpu", 2))(few)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    far = float(np.abs(make_forward(network, Execution("d4", half, device, 2))(few) - right).max())

    def rate(batch: int) -> float:
        return time_forward(make_forward(network, Execution("d4", half, device, batch)), name, batch, patch, rounds)

    batch = 1 if device == "cpu" else choose_batch(rate)
    return batch, rate(batch), far


def measure_choices(name: str, device: str, patch: int, rounds: int, batch: int) -> dict[str, float]:
    """Patches a second of what might be chosen instead."""
    run = Execution("d4", "bfloat16", device, batch)
    plain = build_model(name).to(device).eval()

    def predict(views: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return torch.sigmoid(torch.as_tensor(plain(views)).float())

    found = {"without channels_last": time_forward(forward_of(predict, run), name, batch, patch, rounds)}
    if device == "cuda":  # takes minutes elsewhere
        compiled = make_forward(torch.compile(build_model(name)), run)  # type: ignore[arg-type]
        found["torch.compile"] = time_forward(compiled, name, batch, patch, rounds)
    return found


def time_forward(forward: Forward, name: str, batch: int, patch: int, rounds: int) -> float:
    """Patches a second; the first call, which chooses algorithms or compiles, does not count."""
    patches = draw_patches(name, batch, patch)
    forward(patches)
    begun = time.perf_counter()
    for _ in range(rounds):
        forward(patches)
    return batch * rounds / (time.perf_counter() - begun)


def draw_patches(name: str, batch: int, patch: int) -> NDArray[np.float32]:
    """Patches of noise."""
    return np.random.default_rng(0).normal(size=(batch, channels(name), patch, patch)).astype(np.float32)


def channels(name: str) -> int:
    """Channels of a network's input."""
    return 1 if input_kind(name) == "difference" else 6


def measure_training(name: str, device: str, patch: int, rounds: int, samples: int) -> float:
    """Samples a second of training steps on tensors that are there already."""
    network = build_model(name).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters())
    x = torch.randn(samples, channels(name), patch, patch, device=device).to(memory_format=torch.channels_last)
    y = torch.randint(0, 2, (samples, 1, patch, patch), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            logits = network(x)
        loss = dice_bce(logits.float(), y)
        torch.autograd.backward(loss)
        optimizer.step()
        float(loss.detach())  # waits for the device

    step()
    begun = time.perf_counter()
    for _ in range(rounds):
        step()
    return samples * rounds / (time.perf_counter() - begun)


def measure_predict(device: str, patch: int, side: int) -> list[tuple[str, str]]:
    """A real prediction with both networks: seconds, and how busy the GPU was."""
    with tempfile.TemporaryDirectory() as folder:
        arguments: dict[str, dict[str, Any]] = {name: {} for name in MODELS}
        config = make_project(Path(folder), side, arguments, patch, tta="d4" if device == "cuda" else "none")
        gpus = ["--set", "resources.gpus=0"] if device == "cpu" else []
        run("-m", "cdpipe.cli.main", "ingest", str(config), *gpus)
        busy: list[float] = []
        begun = time.perf_counter()
        with sampled(busy) if device == "cuda" else tempfile.TemporaryDirectory():
            run("-m", "cdpipe.cli.main", "predict", str(config), *gpus)
        seconds = time.perf_counter() - begun
    rows = [(f"cdpipe predict of {side}², both networks, with start-up and rasters", f"{seconds:.0f} s")]
    at_work = [number for number, share in enumerate(busy) if share]
    if at_work:
        share = float(np.mean(busy[at_work[0] : at_work[-1] + 1]))
        rows.append((f"GPU busy from first to last forward, {len(busy)} samples (target 90 %)", f"{share:.0f} %"))
    return rows


@contextmanager
def sampled(busy: list[float]) -> Iterator[None]:
    """Note how busy the first GPU is, in percent, five times a second."""
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_MS / 1000):
            busy.append(float(query("utilization.gpu").splitlines()[0]))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
