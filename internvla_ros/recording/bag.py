"""Writing MCAP files, profile ros2, that can be read however the writing ends."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

from mcap.writer import CompressionType, Writer

from internvla_ros.recording.definitions import definition

_CHUNK = 256 * 1024  # bytes before compression; a file that is cut off lacks at most its last one


class BagError(RuntimeError):
    """A bag cannot be written."""


@dataclass
class Bag:
    """One MCAP file. Everything but the newest chunk of up to 256 KiB is on disk at any time.

    Args:
        path: where to write; folders are made, a file that is there is replaced.

    Raises:
        BagError: the file cannot be made.
    """

    path: Path
    messages: int = field(default=0, init=False)
    """Messages written."""

    def __post_init__(self) -> None:
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._closed = False
        self._pending = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        except OSError as error:
            raise _problem(self.path, error) from error
        self._writer = Writer(self._file, chunk_size=_CHUNK, compression=CompressionType.LZ4)
        self._writer.start(profile="ros2", library="internvla_ros")

    @property
    def size(self) -> int:
        """Bytes so far, the chunk in the making as if it could not be compressed; 0 when closed."""
        return 0 if self._closed else self._file.tell() + self._pending

    def write(self, topic: str, typename: str, data: bytes, stamp: float) -> None:
        """Add a message.

        Args:
            topic: its full name, such as "/front/camera_info".
            typename: such as "sensor_msgs/msg/CameraInfo"; its definition goes into the file.
            data: the message as CDR.
            stamp: s, >= 0, when it was published or, if that is not known, received.

        Raises:
            BagError: the disk is full or gone. What was written before stays readable.
            DefinitionError: the type is unknown.
        """
        channel = self._channels.get(topic)
        time = round(stamp * 1e9)
        try:
            if channel is None:
                channel = self._channels[topic] = self._channel(topic, typename)
            before = self._file.tell()
            self._writer.add_message(channel, time, data, time)
            self._pending = self._pending + len(data) if self._file.tell() == before else 0
            self._file.flush()
        except OSError as error:
            raise _problem(self.path, error) from error
        self.messages += 1

    def close(self) -> None:
        """Write the rest and the index. Without it the file can be read from its start only.

        Raises:
            BagError: the disk is full or gone.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with self._file:
                self._writer.finish()
        except OSError as error:
            raise _problem(self.path, error) from error

    def _channel(self, topic: str, typename: str) -> int:
        text = definition(typename)
        if typename not in self._schemas:
            self._schemas[typename] = self._writer.register_schema(
                typename, "ros2msg", text.encode()
            )
        return self._writer.register_channel(topic, "cdr", self._schemas[typename])


def _problem(path: Path, error: OSError) -> BagError:
    what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return BagError(f"cannot write the bag {path}: {what}")
