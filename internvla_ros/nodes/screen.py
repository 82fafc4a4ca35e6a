"""The front camera with the predictions drawn in, as a video and in a window."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from internvla_ros.recording.video import VideoFile
from internvla_ros.spatial.draw import annotate
from internvla_ros.spatial.types import SpatialAnswer

_WINDOW = "internvla demo"


def window_problem() -> str:
    """Why no window can be opened here; empty when one can."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"
    try:
        cv2.namedWindow(_WINDOW, cv2.WINDOW_NORMAL)
    except cv2.error:
        return "this OpenCV was built without windows"
    return ""


class Screen:
    """Draws pictures and passes them on to a video file and a window."""

    def __init__(self, video: Path, size: tuple[int, int], rate: int, window: bool) -> None:
        """
        Args:
            video: the mp4 file to write.
            size: (width, height), px, of the video.
            rate: pictures a second that will come.
            window: show a window too.
        Raises:
            VideoError: the file cannot be made.
        """
        self._size = size
        self._window = window
        self._video = VideoFile(video, *size, rate)

    def show(
        self,
        picture: NDArray[np.uint8],
        answer: SpatialAnswer | None,
        caption: str,
        status: str,
    ) -> None:
        """Add a picture uint8 [h, w, 3]; the answer's pixels are its own."""
        width, height = self._size
        if picture.shape[:2] != (height, width):
            if answer is not None:
                answer = answer.scaled(width / picture.shape[1], height / picture.shape[0])
            picture = np.asarray(
                cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA), dtype=np.uint8
            )
        drawn = annotate(picture, answer, caption=caption, status=status)
        self._video.write(drawn)
        if self._window:
            cv2.imshow(_WINDOW, drawn[:, :, ::-1])
            cv2.waitKey(1)

    def close(self) -> None:
        """Finish the video and close the window."""
        self._video.close()
        if self._window:
            cv2.destroyWindow(_WINDOW)
