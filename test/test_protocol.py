"""What may be asked: each request is read as what it is, or an error names what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.serving import protocol
from internvla_ros.serving.answers import AnswerError, answer_from_map, answer_to_map
from internvla_ros.serving.codec import decode, encode
from internvla_ros.serving.fields import RequestError
from internvla_ros.serving.protocol import Act, Describe, Infer, Init, Look, Ping, Reset, parse
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

DATA = Path(__file__).parent / "data" / "protocol"
VIEW = np.zeros((4, 6, 3), np.uint8)
BATCH = {"batch_images": [[VIEW, VIEW]], "instructions": ["pick up the cup"]}
PLAN = {
    "hidden_states": np.zeros((1, 1, 3, 4), np.float32),
    "attention_mask": np.ones((1, 3), bool),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("02", Ping), ("04", Ping), ("06", Init), ("08", Init), ("10", Reset), ("12", Reset),
     ("16", Infer), ("22", Init)],
)  # fmt: skip
def test_recorded_requests_are_what_they_are(name: str, kind: type) -> None:
    (path,) = DATA.glob(f"{name}_*.msgpack")
    assert type(parse(decode(path.read_bytes()))) is kind


def test_a_request_without_type_is_told_by_its_fields() -> None:
    assert parse({"device": "cuda:0"}) == Init("cuda:0")
    assert parse({"type": "unheard of", "device": "cpu"}) == Init("cpu")
    assert parse({"reset": True}) == Reset()
    step = parse({"images": [VIEW], "task_description": "go"})
    assert isinstance(step, Infer) and step.first_step and step.instructions == ("go",)
    batch = parse(BATCH)
    assert isinstance(batch, Infer) and not batch.first_step


def test_all_fields_of_an_inference_are_read() -> None:
    payload = {
        **BATCH,
        "unnorm_key": "bridge",
        "do_sample": False,
        "cfg_scale": np.float32(1.25),
        "use_ddim": True,
        "num_ddim_steps": 7,
        "states": [[0.0, 1.0]],
        "points": np.full((1, 2, 2), np.nan),
        "seed": 5,
    }
    request = parse(decode(encode({"type": "infer", "payload": payload})))
    assert isinstance(request, Infer)
    assert request.sampling == protocol.Sampling(5, 7, 1.25, "ddim", "bridge")
    assert request.states is not None and request.states.tolist() == [[0.0, 1.0]]
    assert request.points is not None and np.isnan(request.points).all()


def test_own_requests() -> None:
    assert parse({"type": "internvla/describe"}) == Describe()
    look = parse(
        {
            "type": "internvla/look",
            "payload": {"images": [[VIEW]], "instructions": ["go"], "drafts": {"boxes": [1, 2]}},
        }
    )
    assert isinstance(look, Look) and look.drafts == {"boxes": [1, 2]} and not look.trace
    blind = parse({"type": "internvla/act", "payload": {"images": [[], []]}})
    assert isinstance(blind, Act) and blind.images == ((), ()) and blind.plan is None
    seen = parse({"type": "internvla/act", "payload": {"images": [[VIEW]], **PLAN}})
    assert isinstance(seen, Act) and seen.plan is not None and len(seen.plan.instructions) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_images": None}, "needs 'batch_images'"),
        ({"batch_images": []}, "list of lists"),
        ({"batch_images": [[]]}, "at least one"),
        ({"batch_images": [VIEW[..., 0]]}, r"uint8 \[height, width, 3\]|views"),
        ({"batch_images": [[VIEW.astype(float)]]}, "uint8"),
        ({"batch_images": [[VIEW[:0]]]}, r"got \[0, 6, 3\]"),
        ({"batch_images": [[np.zeros((1, 9000, 3), np.uint8)]]}, "8192 pixels"),
        ({"batch_images": np.uint8(3)}, "list of lists"),
        ({"instructions": "go"}, "'instructions' must be a list of texts"),
        ({"instructions": [b"go"]}, "'instructions' must be a text, not bytes"),
        ({"instructions": ["a", "b"]}, "2 instructions for 1 samples"),
        ({"instructions": ["x" * 5000]}, "5000 characters"),
        ({"use_ddim": False}, "DDIM only"),
        ({"do_sample": "yes"}, "'do_sample' must be true or false"),
        ({"cfg_scale": float("inf")}, "'cfg_scale' must be finite"),
        ({"cfg_scale": True}, "'cfg_scale' must be a number"),
        ({"num_ddim_steps": 0}, "'num_ddim_steps' must be a whole number in 1"),
        ({"num_ddim_steps": 2.0}, "'num_ddim_steps' must be a whole number"),
        ({"seed": -1}, "'seed'"),
        ({"unnorm_key": 3}, "'unnorm_key' must be a text, not int"),
        ({"states": [[np.nan]]}, "'states' must be finite"),
        ({"states": [1.0]}, "'states' must be numbers in 2 dimensions"),
        ({"states": [[1.0], [1.0, 2.0]]}, "rows differ"),
        ({"points": np.full((1, 1, 2), np.inf)}, "'points' must be finite"),
        ({"points": [[["a", "b"]]]}, "'points' must be numbers"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse({"type": "infer", "payload": {**BATCH, **changes}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_states": PLAN["hidden_states"].astype(np.float64)}, "array of float32"),
        ({"hidden_states": PLAN["hidden_states"][0]}, "hidden states"),
        ({"attention_mask": np.zeros((1, 3), bool)}, "not padding"),
        ({"attention_mask": np.ones((1, 2), bool)}, "mask"),
        ({"attention_mask": np.ones((), bool)}, "mask"),
        ({"attention_mask": None}, "'attention_mask' must be an array of bool"),
        ({"images": [[VIEW], [VIEW]]}, "1 plans for 2 samples"),
        ({"instructions": ["a", "b"]}, "2 instructions for 1 plans"),
        ({"instructions": "go"}, "'instructions' must be a list of texts"),
        ({"frozen": -1}, "'frozen'"),
        ({"previous": [[1.0]]}, "'previous' must be numbers in 3"),
    ],
)
def test_a_wrong_plan_is_refused(changes: dict[str, Any], words: str) -> None:
    payload = {"images": [[VIEW]], **PLAN, **changes}
    with pytest.raises(RequestError, match=words):
        parse({"type": "internvla/act", "payload": payload})


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ([], "a request is a map, not a list"),
        ({"type": "infer", "payload": 3}, "a payload is a map, not int"),
        ({"type": "internvla/dance"}, "no request 'internvla/dance'; there are internvla/describe"),
        ({"type": "init"}, "'device' must be a text, not missing"),
        ({"type": ["unhashable"]}, "needs 'batch_images'"),
        ({"type": "internvla/look", "payload": {"images": [[VIEW]], "instructions": ["a"],
          "drafts": {"boxes": [-1]}}}, "'drafts'"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_request(message: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse(message)


@pytest.mark.parametrize("given_id", [None, ["a"], "x" * 300, 1.5])
def test_an_id_is_a_text_or_a_number(given_id: Any) -> None:
    assert protocol.request_id({"request_id": 3}) == 3
    assert protocol.request_id({}) == "default"
    with pytest.raises(RequestError, match="request_id"):
        protocol.request_id({"request_id": given_id})


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from([VIEW, VIEW[..., :2], np.float32(1), np.zeros((1, 1)), np.array("a")]),
)  # fmt: skip
ANY = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(
        st.sampled_from(["batch_images", "images", "instructions", "drafts", "device"]), inner)),
    max_leaves=5,
)  # fmt: skip
KINDS = ("infer", "init", "internvla/look", "internvla/act", "internvla/answer", "internvla/x", 7)


@given(st.sampled_from(KINDS), ANY, ANY)
def test_anything_is_a_request_or_one_clear_error(kind: Any, payload: Any, seen: Any) -> None:
    for message in ({"type": kind, "payload": payload}, {"type": kind, "images": seen}, payload):
        try:
            parse(message)
        except RequestError as error:
            assert str(error)


def test_a_spatial_answer_arrives_as_it_was() -> None:
    answer = SpatialAnswer(
        boxes=(Box(1, 2, 3.5, 4, "cup", 0.5), Box(0, 0, 1, 1)),
        points=(Point(7, 8, "handle"),),
        traces=(Trace(np.array([[0.0, 1.0], [2.0, 3.0]]), "way"),),
        text="[...]",
        problems=("cut short",),
        subtask="grasp",
    )
    for each in (answer, SpatialAnswer()):
        assert answer_from_map(decode(encode(answer_to_map(each)))) == each


@pytest.mark.parametrize("content", [None, {}, {**answer_to_map(SpatialAnswer()), "boxes": 3}])
def test_what_is_no_spatial_answer(content: Any) -> None:
    with pytest.raises(AnswerError):
        answer_from_map(content)
