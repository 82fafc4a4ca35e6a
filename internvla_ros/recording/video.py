"""Writing a video that is valid however the writing ends."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


class VideoError(RuntimeError):
    """A video cannot be written."""


class VideoFile:
    """An mp4 file (h264) that grows by whole fragments: what is on disk can always be played."""

    def __init__(self, path: Path, width: int, height: int, rate: int) -> None:
        """
        Args:
            path: where to write; folders are made, a file that is there is replaced.
            width, height: px, even.
            rate: frames a second.
        Raises:
            VideoError: the file cannot be made.
        """
        self.path = path
        self.frames = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(path),
                "w",
                format="mp4",
                options={
                    "movflags": "frag_keyframe+empty_moov+default_base_moof",
                    "flush_packets": "1",
                },
            )
        except OSError as error:
            raise VideoError(f"cannot write the video {path}: {error.strerror}") from error
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._period = Fraction(1, rate)
        self._stream.codec_context.time_base = self._period
        self._stream.codec_context.gop_size = rate  # a fragment a second
        self._stream.codec_context.thread_count = 1
        self._stream.options = {"preset": "ultrafast", "crf": "23", "tune": "zerolatency"}
        self._closed = False

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Add a picture uint8 [height, width, 3], RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self.frames
        frame.time_base = self._period
        self.frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write out what is left."""
        if self._closed:
            return
        self._closed = True
        self._container.mux(self._stream.encode(None))
        self._container.close()
