"""Grounding conversations, snapshots on disk and LLaVA files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from internvla_ros import cli
from internvla_ros.data.episode import Episode, EpisodeError, Frame
from internvla_ros.data.grounding import (
    Centres,
    GroundingFrame,
    conversation,
    episode_frames,
    read_llava,
    write_llava,
)
from internvla_ros.data.images import ImageError, encode_jpeg, read_image
from internvla_ros.data.lerobot import DatasetError, EpisodeWriter, LeRobotDataset
from internvla_ros.data.snapshots import SnapshotWriter, read_snapshots
from internvla_ros.spatial import prompts
from internvla_ros.spatial.text import parse
from internvla_ros.spatial.types import Box, Point

WIDTH, HEIGHT = 320, 240
SEEN = 128
NAMES = ("blue bowl", "red cube", "green ball")
BOXES = np.array([[200.0, 100, 280, 160], [40, 60, 70, 90], [np.nan] * 4])
RNG_SEED = 3


def make_frame(seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    picture[60:90, 40:70] = (200, 30, 30)
    return Frame(
        front=picture,
        wrist=picture[::-1].copy(),
        state=rng.normal(size=10),
        boxes=BOXES,
        pick_point=np.array([55.0, 75.0]),
        place_point=np.array([240.0, 130.0]),
        tip_pixel=np.array([10.0, 20.0]),
        objects=NAMES,
        instruction="Put the red cube in the blue bowl",
        pick="red cube",
        place="blue bowl",
        relation="in",
        holding=False,
    )


TRACE = np.linspace([10.0, 20.0], [240.0, 130.0], 10)
GROUNDING = replace(GroundingFrame.from_frame(make_frame()), trace=TRACE)


def answers(frame: GroundingFrame, width: int = SEEN, height: int = SEEN) -> dict[str, str]:
    turns = conversation(frame, np.random.default_rng(RNG_SEED), width, height)
    return {turn.question: turn.answer for turn in turns}


def test_task_boxes_name_the_moved_object_first() -> None:
    answer = answers(GROUNDING)[prompts.spatial_prompt(GROUNDING.instruction)]
    assert answer == (
        '[{"bbox_2d": [16, 32, 28, 48], "label": "red cube"}, '
        '{"bbox_2d": [80, 53, 112, 85], "label": "blue bowl"}]'
    )


def test_points_and_trace_are_in_pixels_of_the_seen_image() -> None:
    found = answers(GROUNDING)
    assert found[prompts.point_prompt(GROUNDING.instruction)] == "[(22, 40), (96, 69)]"
    text = found[prompts.trace_prompt(GROUNDING.instruction)]
    (trace,) = parse(text, SEEN, SEEN).traces
    assert len(trace.points) == 10
    np.testing.assert_allclose(trace.points, TRACE * [SEEN / WIDTH, SEEN / HEIGHT], atol=0.5)


def test_named_objects_and_regions_are_asked_about_if_they_are_seen() -> None:
    found = answers(GROUNDING)
    for name in ("red cube", "blue bowl"):
        (box,) = parse(found[prompts.refer_prompt(name)], SEEN, SEEN).boxes
        assert box.label == name
    assert prompts.refer_prompt("green ball") not in found
    cube = prompts.region_prompt(Box(16, 32, 28, 48))
    bowl = prompts.region_prompt(Box(80, 53, 112, 85))
    assert found.get(cube) == "red cube" or found.get(bowl) == "blue bowl"


def test_conversation_depends_on_the_generator_alone() -> None:
    first, again = answers(GROUNDING), answers(GROUNDING)
    assert list(first.items()) == list(again.items())
    orders = {
        tuple(
            turn.question for turn in conversation(GROUNDING, np.random.default_rng(seed), 64, 64)
        )
        for seed in range(5)
    }
    assert len(orders) > 1


def test_what_is_unknown_is_not_asked() -> None:
    hidden = replace(GROUNDING, boxes=np.full((3, 4), np.nan), trace=None)
    outside = replace(hidden, place_point=np.array([400.0, 20.0]))
    assert list(answers(hidden)) == [prompts.point_prompt(GROUNDING.instruction)]
    assert not answers(outside)


def test_coordinates_are_rounded_once() -> None:
    boxes = np.array([[0.0, 0, 9, 9], [10.4, 10.4, 20.4, 20.4], [np.nan] * 4])
    frame = replace(GROUNDING, width=32, height=32, boxes=boxes)
    text = answers(frame, 320, 320)[prompts.refer_prompt("red cube")]
    assert "[104, 104, 204, 204]" in text


def test_mapping_crops_boxes_and_drops_what_is_gone() -> None:
    cropped = GROUNDING.mapped(1, 1, -60, -50, 200, 150)
    boxes = {box.label: box for box in cropped.visible()}
    assert boxes == {
        "blue bowl": Box(140, 50, 200, 110, "blue bowl"),
        "red cube": Box(0, 10, 10, 40, "red cube"),
    }
    assert [box.label for box in GROUNDING.mapped(1, 1, -64, 0, 200, 150).visible()] == [
        "blue bowl"
    ]
    np.testing.assert_allclose(cropped.pick_point, [-5, 25])


def test_another_task_in_the_same_scene() -> None:
    frame = GROUNDING.with_task("put the blue bowl on the red cube", "blue bowl", "red cube", "on")
    found = answers(frame)
    points = parse(found[prompts.point_prompt(frame.instruction)], SEEN, SEEN).points
    assert points == (Point(96, 69), Point(22, 40))
    assert not any("trajectory" in question for question in found)
    with pytest.raises(EpisodeError, match="'pink cup' is not in the frame"):
        GROUNDING.with_task("x", "pink cup", "red cube", "on")


def test_centres_are_learned_from_the_tasks_objects() -> None:
    rng = np.random.default_rng(1)
    frames = [hollow_frame(rng) for _ in range(60)]
    centres = Centres.fit(frames[:50])
    for frame in frames[50:]:
        np.testing.assert_allclose(centres.point(frame, "blue bowl"), frame.place_point, atol=0.01)
        turned = frame.with_task("x", "blue bowl", "red cube", "on")
        learned = centres.with_task(frame, "x", "green bowl", "red cube", "on")
        assert learned.instruction == "x"
        box = frame.box("green bowl")
        np.testing.assert_allclose(learned.pick_point, bowl_centre(box), atol=0.01)
        np.testing.assert_allclose(learned.place_point, turned.place_point, atol=0.01)


def test_unknown_kinds_have_their_centre_in_the_middle() -> None:
    np.testing.assert_allclose(Centres.fit([]).point(GROUNDING, "red cube"), [55, 75])
    assert np.isnan(Centres.fit([]).point(GROUNDING, "green ball")).all()


def bowl_centre(box: NDArray[np.floating]) -> NDArray[np.floating]:
    size = box[2:] - box[:2]
    return (box[:2] + box[2:]) / 2 + size * [0.1 * (box[0] + box[2]) / 2 / WIDTH, 0.2]


def hollow_frame(rng: np.random.Generator) -> GroundingFrame:
    """A cube and two bowls; the centre of a bowl lies below the middle of its box."""
    corners = rng.uniform(20, 120, (3, 2))
    boxes = np.hstack([corners, corners + rng.uniform(20, 80, (3, 2))])
    return replace(
        GROUNDING,
        objects=("red cube", "blue bowl", "green bowl"),
        boxes=boxes,
        pick_point=(boxes[0, :2] + boxes[0, 2:]) / 2,
        place_point=bowl_centre(boxes[1]),
    )


def make_dataset(root: Path) -> LeRobotDataset:
    frame, frames = make_frame(), 4
    stacked = {
        name: np.repeat(getattr(frame, name)[None], frames, axis=0)
        for name in ("front", "wrist", "state", "boxes", "pick_point", "place_point")
    }
    episode = Episode(
        images={"front": stacked["front"], "wrist": stacked["wrist"]},
        state=stacked["state"],
        action=np.zeros((frames, 7)),
        boxes=stacked["boxes"],
        pick_point=stacked["pick_point"],
        place_point=stacked["place_point"],
        tip_pixel=TRACE[:frames],
        timestamps=np.arange(frames) / 5,
        instruction=frame.instruction,
        pick=frame.pick,
        place=frame.place,
        relation=frame.relation,
        objects=frame.objects,
        seed=0,
        success=True,
    )
    with EpisodeWriter(root, fps=5) as writer:
        writer.write(episode)
    return LeRobotDataset(root)


def test_frames_of_stored_episodes(tmp_path: Path) -> None:
    pairs = list(episode_frames(make_dataset(tmp_path / "set"), [0], stride=2))
    assert len(pairs) == 2
    image, frame = pairs[1]
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert (frame.width, frame.height, frame.pick) == (WIDTH, HEIGHT, "red cube")
    np.testing.assert_allclose(frame.boxes, BOXES, rtol=1e-6)
    assert frame.trace is not None
    np.testing.assert_allclose(frame.trace[[0, -1]], TRACE[[2, 3]], rtol=1e-5)


def test_snapshots_survive_the_disk_and_the_writer_resumes(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path, shard_size=2) as writer:
        for seed in range(3):
            writer.write(make_frame(seed))
    with SnapshotWriter(tmp_path, shard_size=2) as writer:
        assert len(writer) == 3
        writer.write(make_frame(3))
    frames = list(read_snapshots(tmp_path))
    assert len(frames) == 4
    for seed, frame in enumerate(frames):
        written = make_frame(seed)
        np.testing.assert_allclose(frame.state, written.state, rtol=1e-6)
        np.testing.assert_allclose(frame.boxes, written.boxes)
        assert np.abs(frame.front.astype(int) - written.front).mean() < 1
        for name in ("instruction", "pick", "place", "relation", "objects", "holding"):
            assert getattr(frame, name) == getattr(written, name)


def test_interrupted_snapshots_are_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), SnapshotWriter(tmp_path, shard_size=2) as writer:
        for seed in range(3):
            writer.write(make_frame(seed))
        raise KeyboardInterrupt
    assert len(list(read_snapshots(tmp_path))) == 3


def test_killed_snapshot_writer_leaves_whole_shards(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path, shard_size=2)
    for seed in range(3):
        writer.write(make_frame(seed))
    (tmp_path / "shard_000001.parquet.tmp").write_bytes(b"half")
    assert len(list(read_snapshots(tmp_path))) == 2
    assert len(SnapshotWriter(tmp_path)) == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_damaged_shards_and_frames_are_skipped_only_on_request(tmp_path: Path) -> None:
    with SnapshotWriter(tmp_path, shard_size=2) as writer:
        for seed in range(6):
            writer.write(make_frame(seed))
    (tmp_path / "shard_000001.parquet").write_bytes(b"PAR1")
    path = tmp_path / "shard_000002.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["pick"], rows[1]["front"] = "pink cube", b"no picture"
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DatasetError, match=r"shard_000001\.parquet cannot be read"):
        list(read_snapshots(tmp_path))
    skipped: list[str] = []
    assert len(list(read_snapshots(tmp_path, skipped))) == 2
    assert "shard_000001.parquet cannot be read" in skipped[0]
    assert "shard_000002.parquet, row 0: Frame.pick is 'pink cube'" in skipped[1]
    assert "shard_000002.parquet, row 1, front is not a readable picture" in skipped[2]


def test_damaged_snapshots_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere is not a folder"):
        list(read_snapshots(tmp_path / "nowhere"))
    (tmp_path / "shard_000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"shard_000000.parquet cannot be read"):
        list(read_snapshots(tmp_path))


def test_llava_files_hold_pictures_and_conversations(tmp_path: Path) -> None:
    root = tmp_path / "grounding"
    picture = make_frame().front
    blank = replace(GROUNDING, boxes=BOXES * np.nan, pick_point=np.array([-1.0, 0]), trace=None)
    pairs = [(picture, GROUNDING), (picture, blank), (picture, GROUNDING)]
    assert write_llava(root, pairs, np.random.default_rng(0)) == 2
    raw = json.loads((root / "grounding.json").read_text())
    assert raw[0]["conversations"][0]["value"].startswith("<image>\n")
    assert not raw[0]["conversations"][2]["value"].startswith("<image>")
    items = read_llava(root)
    assert [item.id for item in items] == ["000000", "000001"]
    assert items[1].image is not None
    assert np.abs(read_image(items[1].image).astype(int) - picture).mean() < 1
    turns = {turn.question: turn.answer for turn in items[0].resized(WIDTH / 2, HEIGHT / 2)}
    points = turns[prompts.point_prompt(GROUNDING.instruction)]
    assert points == "[(28, 38), (120, 65)]"


def test_llava_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupted() -> object:
        yield make_frame().front, GROUNDING
        raise KeyboardInterrupt

    root = tmp_path / "grounding"
    with pytest.raises(KeyboardInterrupt):
        write_llava(root, interrupted(), np.random.default_rng(0))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    root.mkdir()
    (root / "mine.txt").write_text("")
    with pytest.raises(DatasetError, match="exists already"):
        write_llava(root, [], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "must hold a list"),
        ('[{"id": "a"}]', "item 0 has no list of conversations"),
        ('[{"conversations": [{"from": "gpt", "value": ""}]}]', "does not alternate"),
        (
            '[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt"}]}]',
            "message without text",
        ),
        ('[{"conversations": ["hello"]}]', "does not alternate"),
    ],
)
def test_damaged_llava_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_llava(path)
    assert "talk.json" in str(caught.value)


def test_text_only_conversations_and_unknown_sizes(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    talk = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    path.write_text(json.dumps([{"id": 7, "conversations": talk}]))
    (item,) = read_llava(path)
    assert item.id == "7" and item.image is None
    with pytest.raises(DatasetError, match="states no width and height"):
        item.resized(10, 10)


FORMS = [
    ('[{"bbox_2d": [10, 20, 30, 40], "label": "cup"}]', (Box(10, 20, 30, 40, "cup"),), ()),
    ("<ref> cup </ref> <box> [[10, 20, 30, 40]] </box>", (Box(10, 20, 30, 40, "cup"),), ()),
    (
        '{"response": "ok", "subtask": "Pick up the cup<box>[[10, 20, 30, 40]]</box>"}',
        (Box(10, 20, 30, 40, "cup"),),
        (),
    ),
    ("[(10, 20), (30, 40)]", (), (Point(10, 20), Point(30, 40))),
]


def talk_file(tmp_path: Path, *items: dict[str, object]) -> Path:
    """A JSON file beside one picture of 64 x 48."""
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(np.zeros((48, 64, 3), np.uint8)))
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(list(items)))
    return path


def said(answer: str, **others: object) -> dict[str, object]:
    talk = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": answer}]
    return {"image": "a.jpg", "conversations": talk, **others}


@pytest.mark.parametrize(("answer", "boxes", "points"), FORMS)
def test_answers_of_every_form_are_read_and_scaled(
    tmp_path: Path, answer: str, boxes: tuple[Box, ...], points: tuple[Point, ...]
) -> None:
    (item,) = read_llava(talk_file(tmp_path, said(answer)))
    (read,) = item.answers()
    assert (read.boxes, read.points, item.problems()) == (boxes, points, [])
    assert item.size() == (64, 48), "measured, as the file does not say it"
    (half,) = item.resized(32, 24)
    scaled = parse(half.answer, 32, 24)
    assert scaled.boxes == tuple(box.scaled(0.5, 0.5) for box in boxes)
    assert scaled.points == tuple(point.scaled(0.5, 0.5) for point in points)


def test_traces_and_messages_by_role(tmp_path: Path) -> None:
    path = talk_file(tmp_path)
    talk = [
        {"role": "system", "content": "You are a robot."},
        {"role": "user", "content": "Where to?"},
        {"role": "assistant", "content": '{"future_traj": [[1, 2], [3, 4]]}'},
    ]
    lines = path.with_suffix(".jsonl")
    lines.write_text(json.dumps({"images": ["a.jpg"], "messages": talk}) + "\n\n")
    (item,) = read_llava(lines)
    np.testing.assert_array_equal(item.answers()[0].traces[0].points, [[1, 2], [3, 4]])


def test_labels_of_another_size_are_found(tmp_path: Path) -> None:
    path = talk_file(tmp_path, said("[(10, 20)]"), said("[100, 20, 300, 400]"), said("[(10,"))
    found = [words for item in read_llava(path) for words in item.problems()]
    assert "item 1, answer 0: a box outside the image" in found[0]
    assert "item 2, answer 0" in found[1]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (said("x", image="b.jpg"), r"item 1: its picture .*b\.jpg does not exist"),
        (said("x", image=7), "item 1 names its picture as 7"),
        (said("x", width="64"), "item 1, width must be a number of pixels, not '64'"),
        ({"image": "a.jpg"}, "item 1 has no list of conversations"),
        ("hello", "item 1 is a str, not a conversation"),
    ],
)
def test_damaged_items_are_named_and_skipped_only_on_request(
    tmp_path: Path, item: dict[str, object], message: str
) -> None:
    path = talk_file(tmp_path, said("one"), item, said("three"))
    with pytest.raises(DatasetError, match=message):
        read_llava(path)
    skipped: list[str] = []
    kept = read_llava(path, skipped=skipped)
    assert [item.turns[0].answer for item in kept] == ["one", "three"]
    assert len(skipped) == 1 and re.search(message, skipped[0])


def test_the_command_checks_grounding_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = talk_file(tmp_path, said("[(10, 20)]"), said("x", image="b.jpg"), said("[(99, 20)]"))
    assert cli.main(["dataset", "validate", str(path)]) == 1
    told = capsys.readouterr().out
    assert "b.jpg does not exist" in told and "item 2, answer 0: a point outside" in told
    assert cli.main(["dataset", "validate", str(talk_file(tmp_path, said("[(1, 2)]")))]) == 0


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(ImageError, match=r"a.jpg cannot be read"):
        read_image(path)
    for content in (b"", b"not a picture"):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"a.jpg is not a readable picture"):
            read_image(path)
