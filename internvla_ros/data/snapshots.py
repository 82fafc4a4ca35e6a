"""Single annotated frames on disk: parquet shards with JPEG pictures inside.

with SnapshotWriter("data/demo/snapshots") as writer:
    writer.write(frame)
frames = read_snapshots("data/demo/snapshots")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from internvla_ros.data.episode import EpisodeError, Frame
from internvla_ros.data.images import ImageError, decode_image, encode_jpeg
from internvla_ros.data.lerobot.layout import TEMPORARY_SUFFIX, DatasetError

SHARD_SIZE = 250


class SnapshotWriter:
    """Appends frames to a folder of shards, each written whole or not at all.

    Frames that did not fill a shard are written when the writer is left; one that is killed loses
    those. Opening a folder that has shards continues it.

    Args:
        root: the folder.
        shard_size: frames a shard.
    """

    def __init__(self, root: str | Path, shard_size: int = SHARD_SIZE) -> None:
        self.root = Path(root)
        self.shard_size = shard_size
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob(f"shard_*{TEMPORARY_SUFFIX}"):
            leftover.unlink()
        shards = _shards(self.root)
        self._stored = sum(_row_count(shard) for shard in shards)
        self._next = 1 + max(
            (int(shard.stem.removeprefix("shard_")) for shard in shards), default=-1
        )
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return self._stored + len(self._rows)

    def __enter__(self) -> SnapshotWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def write(self, frame: Frame) -> None:
        """Add a frame."""
        self._rows.append(_row(frame))
        if len(self._rows) >= self.shard_size:
            self.flush()

    def flush(self) -> None:
        """Write the frames that wait as a shard of their own."""
        if not self._rows:
            return
        path = self.root / f"shard_{self._next:06d}.parquet"
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        pq.write_table(pa.Table.from_pylist(self._rows), temporary, compression="none")
        os.replace(temporary, path)
        self._stored += len(self._rows)
        self._next += 1
        self._rows = []


def read_snapshots(root: str | Path, skipped: list[str] | None = None) -> Iterator[Frame]:
    """All frames of a folder, in the order they were written.

    Args:
        root: the folder.
        skipped: where given, damaged shards and frames are left out, and why is appended to it;
            else the first of them raises.

    Raises:
        DatasetError, ImageError: there is no such folder, or a shard or a frame of
            it is damaged; names the file.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder of snapshots")
    for shard in _shards(root):
        try:
            rows = _read_shard(shard)
        except DatasetError as error:
            _leave_out(error, skipped)
            continue
        for number, row in enumerate(rows):
            try:
                frame = _frame(row, f"{shard}, row {number}")
            except (DatasetError, ImageError) as error:
                _leave_out(error, skipped)
                continue
            yield frame


def _leave_out(error: ValueError, skipped: list[str] | None) -> None:
    """Note the error where that is asked for; raise it otherwise."""
    if skipped is None:
        raise error
    skipped.append(str(error))


def snapshot_count(root: str | Path) -> int:
    """How many frames a folder of shards holds, without reading them."""
    return sum(_row_count(shard) for shard in _shards(Path(root)))


def _shards(root: Path) -> list[Path]:
    return sorted(root.glob("shard_[0-9][0-9][0-9][0-9][0-9][0-9].parquet"))


def _row_count(shard: Path) -> int:
    try:
        return int(pq.read_metadata(shard).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{shard} cannot be read as parquet: {error}") from error


def _read_shard(shard: Path) -> list[dict[str, Any]]:
    try:
        return list(pq.read_table(shard).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{shard} cannot be read as parquet: {error}") from error


def _row(frame: Frame) -> dict[str, Any]:
    return {
        "front": encode_jpeg(frame.front),
        "wrist": encode_jpeg(frame.wrist),
        "state": frame.state.tolist(),
        "boxes": frame.boxes.ravel().tolist(),
        "pick_point": frame.pick_point.tolist(),
        "place_point": frame.place_point.tolist(),
        "tip_pixel": frame.tip_pixel.tolist(),
        "objects": list(frame.objects),
        "instruction": frame.instruction,
        "pick": frame.pick,
        "place": frame.place,
        "relation": frame.relation,
        "holding": bool(frame.holding),
    }


def _frame(row: dict[str, Any], where: str) -> Frame:
    try:
        return Frame(
            front=decode_image(row["front"], f"{where}, front"),
            wrist=decode_image(row["wrist"], f"{where}, wrist"),
            state=_floats(row["state"]),
            boxes=_floats(row["boxes"]).reshape(-1, 4),
            pick_point=_floats(row["pick_point"]),
            place_point=_floats(row["place_point"]),
            tip_pixel=_floats(row["tip_pixel"]),
            objects=tuple(row["objects"]),
            instruction=row["instruction"],
            pick=row["pick"],
            place=row["place"],
            relation=row["relation"],
            holding=row["holding"],
        )
    except KeyError as error:
        raise DatasetError(f"{where} lacks {error}") from error
    except EpisodeError as error:
        raise DatasetError(f"{where}: {error}") from error


def _floats(values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)
