"""Short H.264 videos: whole in, whole out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from internvla_ros.data.lerobot.layout import TEMPORARY_SUFFIX, DatasetError

CODEC = "libx264"
PIXEL_FORMAT = "yuv420p"
ENCODER_OPTIONS = {"crf": "18", "preset": "veryfast", "g": "8", "bf": "0", "threads": "1"}


def encode(path: Path, images: NDArray[np.uint8], fps: float) -> None:
    """Write uint8[T, h, w, 3] RGB images as an mp4, atomically; h and w must be even."""
    _, height, width, _ = images.shape
    if height % 2 or width % 2:
        raise DatasetError(f"{path.name}: {width}x{height} images need an even width and height")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with av.open(str(temporary), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(100_000)
        stream = cast(
            av.VideoStream, container.add_stream(CODEC, rate=rate, options=ENCODER_OPTIONS)
        )
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(temporary, path)


def decode(
    path: Path, frames: int, size: tuple[int, int] | None = None, start: float | None = None
) -> NDArray[np.uint8]:
    """Decode exactly `frames` frames to uint8[T, h, w, 3] RGB.

    Args:
        path: the video.
        frames: how many frames it must have.
        size: (width, height) to resize to by area averaging, whatever the aspect ratio; None
            keeps the stored size.
        start: as in `stream`.

    Raises:
        DatasetError: the video is missing, damaged, or has another number of frames.
    """
    images: NDArray[np.uint8] | None = None
    for number, image in enumerate(stream(path, frames, start)):
        if images is None:
            width, height = size or (image.shape[1], image.shape[0])
            images = np.empty((frames, height, width, 3), np.uint8)
        _store(image, images[number])
    assert images is not None, "an episode has frames"
    return images


def stream(path: Path, frames: int, start: float | None = None) -> Iterator[NDArray[np.uint8]]:
    """Decode frame by frame: exactly `frames` times uint8[h, w, 3] RGB.

    Args:
        path: the video.
        frames: how many frames to give, >= 1.
        start: seconds into the file where the first of them is, in a file of many episodes;
            None: the file holds these frames and no others.

    Raises:
        DatasetError: the video is missing, damaged, or has another number of frames.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    converter = VideoReformatter()  # one for all frames: it keeps its tables between them
    count = 0
    try:
        with av.open(str(path)) as container:
            for frame in _frames_from(container, start):
                count += 1
                if count <= frames:
                    image = converter.reformat(frame, format="rgb24").to_ndarray()
                    yield cast(NDArray[np.uint8], image)
                if count == frames and start is not None:
                    return
    except (av.FFmpegError, IndexError) as error:
        raise DatasetError(
            f"{path} is damaged after {count} of {frames} frames: {error}"
        ) from error
    if count != frames:
        raise DatasetError(f"{path} has {count} frames where its episode has {frames}")


def _frames_from(
    container: av.container.InputContainer, start: float | None
) -> Iterator[av.VideoFrame]:
    """The frames from `start` seconds on."""
    video = container.streams.video[0]
    video.thread_type = "NONE"
    if start is None:
        yield from container.decode(video)
        return
    half = 0.5 / float(video.average_rate or 1)
    container.seek(max(0, int((start - half) / float(video.time_base or 1))), stream=video)
    for frame in container.decode(video):
        if frame.time is not None and frame.time >= start - half:
            yield frame


def _store(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Copy `image` into `out`, resized where the sizes differ."""
    if image.shape == out.shape:
        out[...] = image
    else:
        shrinks = out.shape[0] < image.shape[0]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cv2.resize(image, (out.shape[1], out.shape[0]), dst=out, interpolation=interpolation)
