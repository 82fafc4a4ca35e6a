"""`internvla ground` and `internvla checkpoint` on a policy with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from integration.random_policy import save_random_policy
from integration.small_release import write_release
from PIL import Image

from internvla_ros import cli
from internvla_ros.model.cli_ground import as_json
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_checkpoint_is_described(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint", "inspect", str(checkpoint), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    parts = facts["parameters"]
    assert parts["all"] == sum(count for name, count in parts.items() if name != "all")
    assert facts["chunk"][1] == 7
    assert facts["statistics"] == ["widowx_250s"]
    assert cli.main(["checkpoint", "inspect", str(checkpoint)]) == 0
    assert f"parameters, all      {parts['all']:,}" in capsys.readouterr().out


def test_a_corrupt_checkpoint_is_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    assert cli.main(["checkpoint", "inspect", str(tmp_path)]) == cli.EXIT_ERROR
    assert cli.main(["checkpoint", "inspect", str(tmp_path / "absent")]) == cli.EXIT_ERROR
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(str(tmp_path) in line for line in errors)


def test_checkpoints_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, ours = write_release(tmp_path / "run"), tmp_path / "ours"
    convert = ["checkpoint", "convert"]
    assert cli.main([*convert, str(run), str(ours), "--to", "internvla"]) == 0
    back = [*convert, str(ours), str(tmp_path / "back"), "--to", "released", "--dtype", "float32"]
    assert cli.main([*back, "--names", "old"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(ours), str(tmp_path / "back")]
    assert cli.main(["checkpoint", "inspect", str(tmp_path / "back"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["layout"], facts["stored as"], facts["training steps"]) == (
        "released",
        ["float32"],
        20,
    )
    assert cli.main([*convert, str(run), str(ours), "--to", "internvla"]) == cli.EXIT_ERROR
    assert "not empty" in capsys.readouterr().err


def test_the_shipped_checkpoint_is_inspected_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["checkpoint"]) == 0
    assert "checkpoints/nano" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["box", "point", "trace"])
def test_ground_answers_in_json_and_draws(
    kind: str, checkpoint: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = picture.with_name("drawn.png")
    options = ["--kind", kind, "--checkpoint", str(checkpoint), "--out", str(drawn)]
    status = cli.main(["ground", str(picture), "the red cube", *options])
    answer = json.loads(capsys.readouterr().out)
    empty = not (answer["boxes"] or answer["points"] or answer["traces"])
    assert status == (1 if empty else 0)
    with Image.open(drawn) as image:
        assert image.size == (64, 48)
    assert json.loads(drawn.with_suffix(".json").read_text()) == answer


def test_ground_refuses_what_it_cannot_use(
    checkpoint: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_picture = picture.with_name("text.png")
    no_picture.write_text("no picture")
    cases = (
        [str(picture), "  "],
        [str(picture.with_name("absent.png")), "cube"],
        [str(no_picture), "cube"],
        [str(picture), "cube", "--checkpoint", str(checkpoint), "--out", str(picture.parent)],
    )
    for case in cases:
        assert cli.main(["ground", *case]) == cli.EXIT_ERROR
        printed = capsys.readouterr()
        assert printed.err.startswith("internvla ground: ") and printed.err.count("\n") == 1


def test_answers_become_plain_values() -> None:
    answer = SpatialAnswer(
        boxes=(Box(1.04, 2, 3, 4.06, "cube"),),
        points=(Point(5, 6.01, "plate"),),
        traces=(Trace(np.array([[0.0, 1.0], [2.0, 3.33]])),),
        text="as decoded",
    )
    assert as_json(answer) == {
        "boxes": [{"label": "cube", "box": [1.0, 2, 3, 4.1]}],
        "points": [{"label": "plate", "point": [5, 6.0]}],
        "traces": [[[0.0, 1.0], [2.0, 3.3]]],
        "text": "as decoded",
        "problems": [],
    }
