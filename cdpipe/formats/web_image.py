"""Pictures for web pages: WebP files, the same bytes for the same pixels."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cdpipe.workspace.local import write_atomically

LOSSLESS = 101  # what OpenCV takes any quality over 100 for


def write_photo(path: Path, image: NDArray[np.uint8], quality: int = 78) -> int:
    """Write ``(height, width, 3)`` red, green, blue as lossy WebP; returns its size in bytes."""
    return _write(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)


def write_layer(path: Path, image: NDArray[np.uint8]) -> int:
    """Write ``(height, width, 4)`` red, green, blue, opacity as lossless WebP; returns its size in bytes."""
    return _write(path, cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA), LOSSLESS)


def _write(path: Path, image: Any, quality: int) -> int:
    done, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise ValueError(f"{path}: not encoded: {image.shape} {image.dtype}")
    write_atomically(path, data.tobytes())
    return len(data)
