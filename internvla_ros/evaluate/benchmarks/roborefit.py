r"""RoboRefIt: a box of what a command names, in pictures of cluttered tables and shelves.

Layout (github.com/luyh20/VL-Grasp, its readme and its loader): below the root, as
`final_dataset/testA/roborefit_testA.json` or in any other folder, a list of
{"text", "bbox": [x1, y1, x2, y2], "rgb_path", "depth_path", "mask_path", ...} with paths such as
`final_dataset\testA\image\0000000.png` (also with slashes) that are relative to the folder of
final_dataset. In a mask, every pixel that is not black belongs. Splits: testA, testB, train; later
releases call the files `refindoor_SPLIT_with_scene.json`.

The data could not be had here: the reader is tested on files of this layout made by the tests.
Boxes may reach a little over the border of the picture, as a public converter reports; they are
taken as they are.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from internvla_ros.evaluate.benchmarks.masks import read_mask_file
from internvla_ros.evaluate.benchmarks.sample import (
    Benchmark,
    BenchmarkError,
    Sample,
    Truth,
    box_xyxy,
    entry,
    field,
    picture,
    read_json,
)
from internvla_ros.spatial.prompts import refer_prompt

SPLIT = "testA"
FILES = ("roborefit_{}.json", "refindoor_{}_with_scene.json")


def open_roborefit(root: Path, split: str | None) -> Benchmark:
    """The questions of a split; raises BenchmarkError."""
    split = split or SPLIT
    for name in FILES:
        found = sorted(root.rglob(name.format(split)))
        if found:
            return _RoboRefIt(root, found[0], split)
    raise BenchmarkError(f"{root} has no {FILES[0].format(split)} below it")


class _RoboRefIt:
    def __init__(self, root: Path, path: Path, split: str) -> None:
        self._root, self._path, self._split = root, path, split
        self._rows = read_json(path)
        if not isinstance(self._rows, list):
            raise BenchmarkError(f"{path} must hold a list")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        where = f"{self._path}, item {index}"
        row = entry(self._rows[index], where)
        shown = self._file(field(row, "rgb_path", str, where))
        mask = row.get("mask_path")
        return Sample(
            name=f"{self._split} item {index}",
            group=shown.name,
            views=picture(shown, where),
            question=refer_prompt(field(row, "text", str, where)),
            truth=Truth(
                boxes=box_xyxy(row.get("bbox"), "bbox", where),
                region=partial(read_mask_file, self._file(str(mask)), 0) if mask else None,
            ),
        )

    def _file(self, written: str) -> Path:
        """A file by its path in the list, wherever the split's folder has been put."""
        parts = Path(written.replace("\\", "/")).parts
        inside = parts[parts.index(self._split) + 1 :] if self._split in parts else parts
        places = [self._root.joinpath(*parts), self._path.parent.joinpath(*inside)]
        return next((path for path in places if path.is_file()), places[-1])
