"""JPEG pictures in and out, RGB."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 95


class ImageError(ValueError):
    """A picture that cannot be read or written."""


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """uint8[h, w, 3] RGB as JPEG with full colour resolution."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ImageError(f"an image of shape {list(image.shape)} cannot be written as JPEG")
    return buffer.tobytes()


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Any picture file's content as uint8[h, w, 3] RGB; `name` is for the error."""
    buffer = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if len(buffer) else None
    if image is None:
        raise ImageError(f"{name} is not a readable picture")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture file as uint8[h, w, 3] RGB; ImageError names it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error}") from error
    return decode_image(data, str(path))
