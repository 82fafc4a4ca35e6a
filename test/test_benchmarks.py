"""Readers of the published grounding benchmarks, on small files of their layouts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from internvla_ros.evaluate.benchmarks.formats import FORMATS, open_benchmark
from internvla_ros.evaluate.benchmarks.masks import decode
from internvla_ros.evaluate.benchmarks.sample import Benchmark, BenchmarkError, Sample
from internvla_ros.evaluate.benchmarks.where2place import ASK_FOR_POINTS

SIZE = (40, 30)  # width and height of the pictures
BOX = [5.0, 6.0, 10.0, 12.0]  # x y w h
CORNERS = [[5.0, 6.0, 15.0, 18.0]]
POLYGON = [5.0, 6.0, 14.0, 6.0, 14.0, 17.0, 5.0, 17.0]
SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/interndata_m1_sample"


def png(shade: int = 90, size: tuple[int, int] = SIZE) -> bytes:
    image = np.full((size[1], size[0], 3), shade, np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


def mask_png() -> bytes:
    image = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    image[6:18, 5:15] = 255
    return cv2.imencode(".png", image)[1].tobytes()


def put(path: Path, content: bytes | str | Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def check_box(sample: Sample, question: str) -> None:
    assert sample.question == question
    assert sample.views()[0].shape == (30, 40, 3)
    assert sample.truth.boxes is not None and sample.truth.boxes.tolist() == CORNERS
    assert sample.truth.region is not None
    region = sample.truth.region()
    assert region.shape == (30, 40) and region[7:17, 6:14].all() and not region[:5].any()


# RefCOCO-g ------------------------------------------------------------------------------------

REFS = [
    {
        "ref_id": 7, "ann_id": 70, "image_id": 700, "category_id": 1, "split": "val",
        "file_name": "COCO_train2014_000000000700_70.jpg",
        "sentences": [{"sent_id": 1, "sent": "the red cup"}, {"sent_id": 2, "sent": "A cup"}],
    },
    {"ref_id": 8, "ann_id": 70, "image_id": 700, "split": "train", "sentences": [{"sent": "x"}]},
]  # fmt: skip
INSTANCES = {
    "images": [{"id": 700, "file_name": "COCO_700.jpg", "width": 40, "height": 30}],
    "annotations": [{"id": 70, "image_id": 700, "bbox": BOX, "segmentation": [POLYGON]}],
}
CUP = "Locate the the red cup. Output its bounding box in [x1,y1,x2,y2] format."


def refcocog(root: Path, refs: Any = REFS, instances: Any = INSTANCES) -> Benchmark:
    put(root / "refs(umd).p", pickle.dumps(refs, protocol=2))
    put(root / "instances.json", instances)
    put(root / "train2014" / "COCO_700.jpg", png())
    return open_benchmark("refcocog", root)


def test_refcocog_asks_for_every_sentence_of_the_split(tmp_path: Path) -> None:
    found = refcocog(tmp_path)
    assert len(found) == 2
    check_box(found[0], CUP)
    assert "A cup".lower() in found[1].question and found[0].group == found[1].group
    assert len(open_benchmark("refcocog", tmp_path, "train")) == 1
    with pytest.raises(BenchmarkError, match="has no split 'test'"):
        open_benchmark("refcocog", tmp_path, "test")


class Planted:
    def __reduce__(self) -> object:
        return (print, ("believed",))


def test_a_pickle_that_asks_for_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BenchmarkError, match=r"refs\(umd\)\.p: a pickle that asks for"):
        refcocog(tmp_path, [Planted()])
    assert "believed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ann_id": 71}, r"ref 0: ann_id 71 is not in instances\.json"),
        ({"image_id": 1}, r"ref 0: image_id 1 is not in instances\.json"),
        ({"sentences": []}, "ref 0 has no sentence"),
        ({"sentences": "cup"}, "ref 0: sentences is 'cup', not a list"),
        ({"sentences": [{"raw": "cup"}]}, "ref 0: sent is missing"),
    ],
)
def test_a_damaged_ref_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    found = refcocog(tmp_path, [REFS[0] | changes, REFS[0]])
    with pytest.raises(BenchmarkError, match=message):
        found[0]
    check_box(found[len(found) - 2], CUP)  # what is good can still be asked


def test_a_damaged_picture_and_box_are_named(tmp_path: Path) -> None:
    thing = INSTANCES["annotations"][0] | {"bbox": [5, 6, 0, 12]}
    found = refcocog(tmp_path, instances=INSTANCES | {"annotations": [thing]})
    with pytest.raises(BenchmarkError, match=r"ref 0: bbox .* has no area"):
        found[0]
    found = refcocog(tmp_path)
    put(tmp_path / "train2014" / "COCO_700.jpg", b"no picture")
    with pytest.raises(BenchmarkError, match=r"ref 0: .*COCO_700\.jpg is not a readable picture"):
        found[0].views()


def test_refcocog_as_published_in_parquet(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": "1", "image": {"bytes": png(), "path": None}, "bbox": BOX,
            "answer": ["the red cup", "a cup"], "segmentation": POLYGON,
        },
        {
            "question_id": "2", "image": {"bytes": b"", "path": None}, "bbox": [1.0],
            "answer": [], "segmentation": None,
        },
    ]  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "val-00000-of-00001.parquet")
    found = open_benchmark("refcocog", tmp_path)
    assert len(found) == 3
    check_box(found[0], CUP)
    with pytest.raises(BenchmarkError, match=r"val-.*parquet, row 1 has no expression"):
        found[2]


# RoboRefIt ------------------------------------------------------------------------------------


def roborefit(root: Path, *rows: Any) -> Benchmark:
    split = root / "data" / "final_dataset" / "testA"
    put(split / "image" / "0000000.png", png())
    put(split / "mask" / "0000000" / "01.png", mask_png())
    put(split / "roborefit_testA.json", list(rows))
    return open_benchmark("roborefit", root)


ROW = {
    "text": "the red cup",
    "bbox": [5, 6, 15, 18],
    "rgb_path": "final_dataset\\testA\\image\\0000000.png",
    "mask_path": "final_dataset\\testA\\mask\\0000000\\01.png",
}


@pytest.mark.parametrize("separator", ["\\", "/"])
def test_roborefit(tmp_path: Path, separator: str) -> None:
    row = {key: v.replace("\\", separator) if isinstance(v, str) else v for key, v in ROW.items()}
    check_box(roborefit(tmp_path, row)[0], CUP)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "item 1 must be a mapping, not list"),
        (ROW | {"bbox": [5, 6, 15]}, "item 1: bbox is .*, not numbers"),
        (ROW | {"bbox": [15, 6, 5, 18]}, "item 1: bbox .* has no area"),
        (ROW | {"bbox": [5, 6, float("nan"), 18]}, "item 1: bbox has numbers that are not finite"),
        (ROW | {"text": None}, "item 1: text is missing"),
    ],
)
def test_a_damaged_item_is_named(tmp_path: Path, row: Any, message: str) -> None:
    found = roborefit(tmp_path, ROW, row)
    check_box(found[0], CUP)
    with pytest.raises(BenchmarkError, match=rf"roborefit_testA\.json, {message}"):
        found[1]


# Where2Place ----------------------------------------------------------------------------------

QUESTION = (
    "Locate several points within the free space left of the cup. Your answer should be formatted "
    "as a list of tuples, i.e. [(x1, y1), (x2, y2), ...]."
)
ASKED = f"Locate several points within the free space left of the cup. {ASK_FOR_POINTS}"


def check_region(sample: Sample) -> None:
    assert sample.question == ASKED and sample.views()[0].shape == (30, 40, 3)
    assert sample.truth.region is not None
    assert sample.truth.region().sum() == 120 and sample.truth.boxes is None


def test_where2place(tmp_path: Path) -> None:
    rows = [{"question_id": n, "image": f"{n:02d}.jpg", "text": QUESTION} for n in range(2)]
    put(tmp_path / "point_questions.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    put(tmp_path / "images" / "00.jpg", png())
    put(tmp_path / "masks" / "00.jpg", mask_png())
    found = open_benchmark("where2place", tmp_path)
    assert len(found) == 2
    check_region(found[0])
    with pytest.raises(BenchmarkError, match=r"mask .*masks/01\.jpg"):
        assert found[1].truth.region is not None
        found[1].truth.region()
    with pytest.raises(BenchmarkError, match="no split 'train'"):
        open_benchmark("where2place", tmp_path, "train")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    put(tmp_path / "point_questions.jsonl", '{"image": "00.jpg", "text": "x"}\n{"image": \n')
    with pytest.raises(BenchmarkError, match=r"point_questions\.jsonl:2 is not JSON"):
        open_benchmark("where2place", tmp_path)


def test_where2place_as_published_in_parquet(tmp_path: Path) -> None:
    row = {"question_id": "0", "question": QUESTION, "question_type": "x"}
    row |= {"image": {"bytes": png(), "path": ""}, "mask": {"bytes": mask_png(), "path": ""}}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data" / "test-0.parquet")
    check_region(open_benchmark("where2place", tmp_path)[0])


# A0 -------------------------------------------------------------------------------------------


def a0(root: Path, **changes: Any) -> Path:
    label = {
        "metadata": {"instructions": "Stack the cube.", "validRange": {"start": 3, "end": 5}},
        "waypoints2d": [[1.0, 2.0], [4.0, 6.0], [8.0, 6.0]],
        "cam_highs": ["images/3.jpg", "images/4.jpg", "images/5.jpg"],
    }
    put(root / "StackCube" / "images" / "3.jpg", png())
    return put(root / "StackCube" / "label" / "out_0.json", label | changes)


def test_a0(tmp_path: Path) -> None:
    a0(tmp_path)
    sample = open_benchmark("a0", tmp_path)[0]
    assert sample.question.startswith("Your task is stack the cube. Predict the future trajectory")
    assert sample.truth.trace is not None
    assert sample.truth.trace.tolist() == [[1, 2], [4, 6], [8, 6]]
    assert sample.views()[0].shape == (30, 40, 3)


def test_a0s_own_split(tmp_path: Path) -> None:
    a0(tmp_path)
    split = {"train": [], "test": ["/their/disk/StackCube/label/out_0.json"]}
    put(tmp_path / "train_test_split.json", split)
    assert open_benchmark("a0", tmp_path)[0].name == "StackCube/out_0"
    with pytest.raises(BenchmarkError, match="val is missing"):
        open_benchmark("a0", tmp_path, "val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"waypoints2d": [[1.0, 2.0, 3.0]]}, "waypoints2d is"),
        ({"waypoints2d": [[1.0, 2.0]]}, "3 pictures and 1 waypoints"),
        ({"cam_highs": None}, "cam_highs is missing"),
        ({"metadata": {"instructions": " "}}, "instructions are ' '"),
    ],
)
def test_a_damaged_label_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    a0(tmp_path, **changes)
    with pytest.raises(BenchmarkError, match=rf"out_0\.json.*{message}"):
        open_benchmark("a0", tmp_path)[0]


# LLaVA and InternData --------------------------------------------------------------------------


def test_llava_questions_that_are_answered_with_places(tmp_path: Path) -> None:
    answers = {
        "Locate the cup.": '[{"bbox_2d": [5, 6, 15, 18], "label": "cup"}]',
        "Name it.": "cup",
        "Point to both.": "[(1, 2), (3, 4)]",
        "Predict.": '{"future_traj": [[1, 2], [3, 4], [5, 6]]}',
    }
    turns = [
        {"from": speaker, "value": said}
        for question, answer in answers.items()
        for speaker, said in (("human", question), ("gpt", answer))
    ]
    turns[0]["value"] = "<image>\n" + turns[0]["value"]
    item = {"id": "a", "image": "a.png", "width": 40, "height": 30, "conversations": turns}
    put(tmp_path / "a.png", png())
    put(tmp_path / "grounding.json", [item])
    found = open_benchmark("llava", tmp_path)
    assert [found[i].question for i in range(3)] == [q for q in answers if q != "Name it."]
    truths = [found[i].truth for i in range(3)]
    assert truths[0].boxes is not None and truths[0].boxes.tolist() == CORNERS
    assert truths[1].points is not None and truths[1].roles == ("pick", "place")
    assert truths[2].trace is not None and len(truths[2].trace) == 3
    assert found[0].views()[0].shape == (30, 40, 3)
    put(tmp_path / "grounding.json", [{"conversations": "none"}])
    with pytest.raises(BenchmarkError, match=r"grounding\.json, item 0"):
        open_benchmark("llava", tmp_path)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the published sample of InternData-M1 is not here")
def test_interndata_asks_about_what_can_be_seen() -> None:
    found = open_benchmark("interndata", SAMPLE)
    missing = getattr(found, "missing")  # noqa: B009
    assert missing and all("does not exist" in line for line in missing)
    kinds = [found[i] for i in range(3)]
    assert kinds[0].truth.boxes is not None and kinds[0].truth.boxes.shape == (2, 4)
    assert kinds[1].truth.points is not None and kinds[1].truth.within is not None
    assert kinds[2].truth.trace is not None and kinds[2].truth.trace.shape == (10, 2)
    assert len({sample.name.rpartition(" ")[0] for sample in kinds}) == 1


# All of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FORMATS))
def test_an_empty_folder_is_no_benchmark(tmp_path: Path, name: str) -> None:
    with pytest.raises(BenchmarkError, match=str(tmp_path)):
        open_benchmark(name, tmp_path, cameras=("front",))


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no format 'coco'; there are internvla, llava"):
        open_benchmark("coco", tmp_path)


# Masks ------------------------------------------------------------------------------------------


def packed(runs: list[int]) -> str:
    """Runs as COCO's text, written from its description and not from our reader."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
            if not more:
                break
    return text


def runs_of(mask: NDArray[np.bool_]) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
    return np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()


masks = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < 0.4
)


@given(masks)
def test_runs_of_either_form_give_the_mask(mask: NDArray[np.bool_]) -> None:
    height, width = mask.shape
    for counts in (runs_of(mask), packed(runs_of(mask))):
        found = decode({"size": [height, width], "counts": counts}, width, height, "x")
        assert np.array_equal(found, mask)


def test_a_known_text_of_runs() -> None:
    """Worked out by hand from the description: 6 x 6, pixels 2 and 3 of columns 1 to 3."""
    mask = np.zeros((6, 6), bool)
    mask[2:4, 1:4] = True
    assert runs_of(mask) == [8, 2, 4, 2, 4, 2, 14] and packed(runs_of(mask)) == "824000:"
    found = decode({"size": [6, 6], "counts": "824000:"}, 6, 6, "x")
    assert np.array_equal(found, mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [6, 5], "counts": [36]}, "size"),
        ({"size": [6, 6], "counts": [35]}, "do not fill"),
        ({"size": [6, 6], "counts": [40, -4]}, "do not fill"),
        ({"size": [6, 6], "counts": "P"}, "cut off"),
        ({"size": [6, 6], "counts": "\x01"}, "character"),
        ({"size": [6, 6], "counts": None}, "counts"),
        ([], "polygons or runs"),
        ([[1.0, 2.0, 3.0]], "polygon"),
    ],
)
def test_what_is_no_mask_is_named(segmentation: Any, message: str) -> None:
    with pytest.raises(BenchmarkError, match=f"here: .*{message}"):
        decode(segmentation, 6, 6, "here")
