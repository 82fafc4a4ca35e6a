"""Videos put one after the other in a file, and taken out again, without encoding anything anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from internvla_ros.data.lerobot import video
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.places import VideoPlace


@dataclass(frozen=True)
class Joined:
    """Where a video went: the number of the file, and the seconds in it."""

    file: int
    start: float
    stop: float


class VideoJoiner:
    """Writes videos into files of many, packet by packet.

    A file ends when it would grow beyond its limit, or when a video differs from those in it in
    codec, size or coding parameters, which players could not follow.

    Args:
        path_of: the path of file number 0, 1, ...
        fps: frames a second of all videos.
        limit: bytes a file, exceeded by a single larger video alone.
    """

    def __init__(self, path_of: Callable[[int], Path], fps: float, limit: int) -> None:
        self._path_of = path_of
        self._fps = Fraction(fps).limit_denominator(100_000)
        self._limit = limit
        self._file = -1
        self._header: Any = None
        self._bytes = 0
        self._frames = 0
        self._out: Any = None
        self._stream: Any = None

    def add(self, path: Path, frames: int) -> Joined:
        """Append a whole video.

        Raises:
            DatasetError: it is missing, damaged or has another number of frames.
        """
        if not path.is_file():
            raise DatasetError(f"{path} does not exist")
        size = path.stat().st_size
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                if self._out is None or self._bytes + size > self._limit or self._differs(stream):
                    self._begin(stream)
                count = self._copy(container, stream)
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(f"{path} is damaged: {error}") from error
        if count != frames:
            raise DatasetError(f"{path} has {count} frames where its episode has {frames}")
        start = self._frames / self._fps
        self._frames += frames
        self._bytes += size
        return Joined(self._file, float(start), float(self._frames / self._fps))

    def close(self) -> None:
        """Finish the file at work."""
        if self._out is not None:
            self._out.close()
            self._out = None

    def _differs(self, stream: Any) -> bool:
        return bool(_header(stream) != self._header)

    def _begin(self, stream: Any) -> None:
        self.close()
        self._file += 1
        self._header, self._bytes, self._frames = _header(stream), 0, 0
        self._out, self._stream = _writer(self._path_of(self._file), stream)

    def _copy(self, container: Any, stream: Any) -> int:
        """Append all packets; returns how many."""
        begin = Fraction(stream.start_time or 0) * stream.time_base
        count = 0
        for packet in container.demux(stream):
            if packet.size:
                _shift(packet, self._frames / self._fps - begin)
                packet.stream = self._stream
                self._out.mux(packet)
                count += 1
        return count


def cut(place: VideoPlace, frames: int, fps: float, target: Path) -> bool:
    """Write an episode's part of a video as a file of its own.

    Returns:
        True if its packets were copied; False if it had to be encoded anew, because it does not
        begin with a picture that stands for itself.

    Raises:
        DatasetError: the video is missing, damaged or too short.
    """
    if not place.path.is_file():
        raise DatasetError(f"{place.path} does not exist")
    begin = place.start or 0.0
    try:
        with av.open(str(place.path)) as container:
            source = container.streams.video[0]
            packets = _packets(container, source, begin, begin + frames / fps, 0.5 / fps)
            if len(packets) != frames:
                raise DatasetError(
                    f"{place.path} has {len(packets)} frames from {begin:.2f} s on where the "
                    f"episode has {frames}"
                )
            if packets[0].is_keyframe:
                _write(target, source, packets, begin)
                return True
    except (av.FFmpegError, IndexError) as error:
        raise DatasetError(f"{place.path} is damaged at {begin:.2f} s: {error}") from error
    video.encode(target, np.stack(list(video.stream(place.path, frames, begin))), fps)
    return False


def count_frames(path: Path) -> int:
    """How many frames a video file says that it has; DatasetError names it."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return int(stream.frames or sum(1 for packet in container.demux(stream) if packet.size))
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(f"{path} cannot be read as a video: {error}") from error


def _packets(container: Any, stream: Any, begin: float, end: float, half: float) -> list[Any]:
    """The packets of the pictures from `begin` to before `end` seconds, each `half` early."""
    tick = float(stream.time_base)
    container.seek(max(0, round(begin / tick)), stream=stream)
    found = []
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        if packet.dts * tick >= end - half:
            break
        if begin - half <= packet.pts * tick < end - half:
            found.append(packet)
    return found


def _write(target: Path, source: Any, packets: list[Any], begin: float) -> None:
    """A file of these packets alone, which begins at 0."""
    out, stream = _writer(target, source)
    with out:
        for packet in packets:
            _shift(packet, -Fraction(begin).limit_denominator(10**6))
            packet.stream = stream
            out.mux(packet)


def _writer(path: Path, template: Any) -> tuple[Any, Any]:
    """An mp4 to write to, and its stream, coded as `template` is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = av.open(str(path), "w", format="mp4")
    # `opaque` takes the source's own codec, which PyAV may have no encoder for.
    stream = out.add_stream_from_template(template, opaque=True)
    stream.time_base = template.time_base
    return out, stream


def _shift(packet: Any, seconds: Fraction) -> None:
    """Move a packet in time."""
    ticks = round(seconds / packet.time_base)
    packet.pts += ticks
    packet.dts += ticks


def _header(stream: Any) -> tuple[Any, ...]:
    """What all videos of a file must have in common."""
    codec = stream.codec_context
    return codec.name, codec.width, codec.height, codec.pix_fmt, bytes(codec.extradata or b"")
