"""Where2Place: points on free space that a sentence describes, in 100 pictures of cluttered rooms.

Layouts that are read:

- huggingface.co/datasets/wentao-yuan/where2place: `images/`, `masks/` with a black-and-white mask
  for each picture, and `point_questions.jsonl` (else `bbox_questions.jsonl`) with
  {"question_id", "image", "text", "category"} a line. The mask of question number n (from 0) is
  `masks/NN.jpg`; one that is named like the picture is preferred.
- huggingface.co/datasets/FlagEval/Where2Place: parquet with question_id, question, question_type,
  image and mask.

A question's score is RoboPoint's (arXiv 2406.10721): the share of its points that lie in the mask,
points outside the picture counting as misses; a box stands for all of its pixels. The questions end
by asking for numbers in 0..1 ("Your answer should be formatted as ..."); that sentence is replaced,
since answers are in pixels here. The dataset cards give the folders; the fields of a line are those
of RoboPoint's public evaluation and could not be checked against the files.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from internvla_ros.data.images import ImageError, decode_image
from internvla_ros.evaluate.benchmarks.masks import read_mask, read_mask_file
from internvla_ros.evaluate.benchmarks.sample import (
    Benchmark,
    BenchmarkError,
    Image,
    Sample,
    Truth,
    entry,
    field,
    picture,
    read_json,
)

QUESTIONS = ("point_questions.jsonl", "bbox_questions.jsonl")
ASK_FOR_POINTS = "Output the points as [(x, y), ...]."
_FORMAT = re.compile(r"\s*Your answer should be formatted.*", re.DOTALL | re.IGNORECASE)


def open_where2place(root: Path, split: str | None) -> Benchmark:
    """All questions; there is one split, "test"; raises BenchmarkError."""
    if split not in (None, "test"):
        raise BenchmarkError(f"Where2Place has no split {split!r}, only 'test'")
    for name in QUESTIONS:
        if (root / name).is_file():
            return _Release(root, root / name)
    tables = sorted([*root.glob("test-*.parquet"), *root.glob("data/test-*.parquet")])
    if tables:
        return _Published(tables)
    raise BenchmarkError(f"{root} has neither {QUESTIONS[0]} nor test-*.parquet of Where2Place")


def asked(text: str) -> str:
    """A question without its own wish for a format, and with ours."""
    return f"{_FORMAT.sub('', text).strip()} {ASK_FOR_POINTS}"


class _Release:
    def __init__(self, root: Path, path: Path) -> None:
        self._root, self._path = root, path
        self._rows = read_json(path)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        where = f"{self._path}, question {index}"
        row = entry(self._rows[index], where)
        name = field(row, "image", str, where)
        return Sample(
            name=f"question {row.get('question_id', index)}",
            group=name,
            views=picture(self._root / "images" / Path(name).name, where),
            question=asked(field(row, "text", str, where)),
            truth=Truth(region=partial(read_mask_file, self._mask(index, name))),
        )

    def _mask(self, index: int, name: str) -> Path:
        own = sorted((self._root / "masks").glob(f"{Path(name).stem}.*"))
        return own[0] if own else self._root / "masks" / f"{index:02d}.jpg"


class _Published:
    def __init__(self, paths: list[Path]) -> None:
        self._path = paths[0].parent
        try:
            self._table = pa.concat_tables([pq.read_table(path) for path in paths])
        except (OSError, pa.ArrowInvalid) as error:
            raise BenchmarkError(f"{paths[0]} cannot be read: {error}") from error

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Sample:
        where = f"{self._path}, row {index}"
        row = self._table.slice(index, 1).to_pylist()[0]
        mask = entry(row.get("mask"), f"{where}, mask").get("bytes") or b""
        return Sample(
            name=f"question {row.get('question_id', index)}",
            group=str(index),
            views=partial(
                _view, entry(row.get("image"), f"{where}, image").get("bytes") or b"", where
            ),
            question=asked(field(row, "question", str, where)),
            truth=Truth(region=partial(read_mask, mask, f"{where}, mask")),
        )


def _view(data: bytes, where: str) -> list[Image]:
    try:
        return [decode_image(data, where)]
    except ImageError as error:
        raise BenchmarkError(str(error)) from error
