"""RefCOCO-g: a box of what an expression names, in COCO's pictures.

Layouts that are read:

- The authors' release (lichenglab "refer", refcocog.zip), also of RefCOCO and RefCOCO+:
  `refs(umd).p` or `refs(google).p`, a pickled list of {"ref_id", "ann_id", "image_id",
  "category_id", "split", "file_name", "sentences": [{"sent"}, ...]};
  beside it `instances.json` in COCO's format, of which "images" (id, file_name, width, height) and
  "annotations" (id, image_id, bbox x y w h, segmentation) are read. A ref's own file_name carries
  the number of the annotation and is no file. A `refs*.json` with the same list is read too.
- The publication as parquet (huggingface.co/datasets/lmms-lab/RefCOCOg): columns image
  {bytes, path}, answer (the expressions), bbox (x y w h), segmentation (one flat polygon),
  question_id, file_name; files `SPLIT-*.parquet`, in the folder or in its `data/`.

Source of the fields: the description of refs(umd).p in the notes of
github.com/marco-garosi/deep-learning-project, and public loaders of either. The data themselves
could not be had here: the readers are tested on files of these layouts made by the tests. Every
expression is a question of its own, as in the usual accuracy at IoU 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from internvla_ros.data.images import ImageError, decode_image
from internvla_ros.data.pickles import PickleError, load_plain
from internvla_ros.evaluate.benchmarks.masks import decode
from internvla_ros.evaluate.benchmarks.sample import (
    Benchmark,
    BenchmarkError,
    Image,
    Sample,
    Truth,
    box_xywh,
    entry,
    field,
    picture,
    read_json,
)
from internvla_ros.spatial.prompts import refer_prompt

SPLIT = "val"
PICTURE_FOLDERS = ("", "images", "train2014", "images/train2014", "images/mscoco/images/train2014")


def open_refcocog(root: Path, split: str | None) -> Benchmark:
    """The questions of a split ("val", "test"); raises BenchmarkError."""
    split = split or SPLIT
    tables = sorted([*root.glob(f"{split}-*.parquet"), *root.glob(f"data/{split}-*.parquet")])
    if tables:
        return _Published(tables)
    for name in ("refs(umd).p", "refs(google).p", "refs(unc).p", "refs(umd).json", "refs.json"):
        if (root / name).is_file():
            return _Release(root, root / name, split)
    raise BenchmarkError(
        f"{root} has neither refs(umd).p with instances.json nor {split}-*.parquet of RefCOCO-g"
    )


@dataclass(frozen=True)
class _Place:
    """Where a question stands: the number of its ref, and of the sentence in it."""

    ref: int
    sentence: int


class _Release:
    """refs(umd).p with instances.json."""

    def __init__(self, root: Path, path: Path, split: str) -> None:
        self._root, self._path = root, path
        self._refs = _read_refs(path)
        instances = entry(read_json(root / "instances.json"), str(root / "instances.json"))
        self._pictures = _by_id(instances, "images", root)
        self._things = _by_id(instances, "annotations", root)
        self._places = [
            _Place(number, sentence)
            for number, ref in enumerate(self._refs)
            if not isinstance(ref, dict) or ref.get("split") == split
            for sentence in range(_count(ref))
        ]
        if not self._places:
            raise BenchmarkError(f"{path} has no split {split!r}")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        place = self._places[index]
        where = f"{self._path}, ref {place.ref}"
        ref = entry(self._refs[place.ref], where)
        sentences = field(ref, "sentences", list, where)
        if not sentences:
            raise BenchmarkError(f"{where} has no sentence")
        sentence = entry(sentences[place.sentence], where)
        thing = self._found(self._things, ref, "ann_id", where)
        shown = self._found(self._pictures, ref, "image_id", where)
        name = field(shown, "file_name", str, where)
        width, height = (field(shown, side, int, where) for side in ("width", "height"))
        segmentation = thing.get("segmentation")
        return Sample(
            name=f"ref {ref.get('ref_id')} sentence {place.sentence}",
            group=name,
            views=picture(self._file(name), where),
            question=refer_prompt(field(sentence, "sent", str, where)),
            truth=Truth(
                boxes=box_xywh(thing.get("bbox"), "bbox", where),
                region=partial(decode, segmentation, width, height, where)
                if segmentation
                else None,
            ),
        )

    def _found(
        self, known: dict[Any, dict[str, Any]], ref: dict[str, Any], key: str, where: str
    ) -> dict[str, Any]:
        if ref.get(key) not in known:
            raise BenchmarkError(f"{where}: {key} {ref.get(key)!r} is not in instances.json")
        return known[ref[key]]

    def _file(self, name: str) -> Path:
        places = [self._root / folder / name for folder in PICTURE_FOLDERS]
        places += [self._root.parent / folder / name for folder in PICTURE_FOLDERS[1:]]
        return next((path for path in places if path.is_file()), places[0])


def _read_refs(path: Path) -> list[Any]:
    if path.suffix == ".json":
        refs = read_json(path)
    else:
        try:
            refs = load_plain(path.read_bytes(), str(path))
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be read: {error}") from error
        except PickleError as error:
            raise BenchmarkError(str(error)) from error
    if not isinstance(refs, list):
        raise BenchmarkError(f"{path} must hold a list of refs, not {type(refs).__name__}")
    return refs


def _count(ref: Any) -> int:
    """How many questions a ref stands for; a damaged one for one, which says so when asked."""
    sentences = ref.get("sentences") if isinstance(ref, dict) else None
    return max(len(sentences), 1) if isinstance(sentences, list) else 1


def _by_id(instances: dict[str, Any], name: str, root: Path) -> dict[Any, dict[str, Any]]:
    where = f"{root / 'instances.json'}, {name}"
    found = {}
    for number, row in enumerate(field(instances, name, list, where)):
        row = entry(row, f"{where} {number}")
        found[row.get("id")] = row
    return found


class _Published:
    """Parquet files with the pictures inside."""

    COLUMNS = ("image", "answer", "bbox")

    def __init__(self, paths: list[Path]) -> None:
        self._tables: list[tuple[Path, pa.Table]] = []
        self._places: list[tuple[int, int, int]] = []
        for path in paths:
            try:
                table = pq.read_table(path, memory_map=True)
            except (OSError, pa.ArrowInvalid) as error:
                raise BenchmarkError(f"{path} cannot be read: {error}") from error
            missing = [name for name in self.COLUMNS if name not in table.column_names]
            if missing:
                raise BenchmarkError(f"{path} has no column {missing[0]!r}")
            self._add(path, table)

    def _add(self, path: Path, table: pa.Table) -> None:
        for row, answers in enumerate(table.column("answer").to_pylist()):
            for sentence in range(max(len(answers or ()), 1)):
                self._places.append((len(self._tables), row, sentence))
        self._tables.append((path, table))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        number, row, sentence = self._places[index]
        path, table = self._tables[number]
        where = f"{path}, row {row}"
        found = table.slice(row, 1).to_pylist()[0]
        if not found["answer"]:
            raise BenchmarkError(f"{where} has no expression")
        data = entry(found["image"], where).get("bytes") or b""
        return Sample(
            name=f"{path.name} row {row} expression {sentence}",
            group=str(found.get("question_id", row)),
            views=partial(_view, data, where),
            question=refer_prompt(str(found["answer"][sentence])),
            truth=Truth(
                boxes=box_xywh(found["bbox"], "bbox", where),
                region=partial(_polygon, data, found["segmentation"], where)
                if found.get("segmentation")
                else None,
            ),
        )


def _view(data: bytes, where: str) -> list[Image]:
    try:
        return [decode_image(data, where)]
    except ImageError as error:
        raise BenchmarkError(str(error)) from error


def _polygon(data: bytes, flat: list[float], where: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    height, width = _view(data, where)[0].shape[:2]
    return decode(flat, width, height, where)
