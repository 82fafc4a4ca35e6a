"""The conversation with MoveIt Servo: every motion starts switched, resumed and well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.motion.backend import BackendError
from internvla_ros.motion.backends.servo_session import Ask, Phase, Request, ServoSession, Status


class Bench:
    """A session, a clock and a Servo that answers as the test wants."""

    def __init__(self) -> None:
        self.session = ServoSession("servo_node")
        self.now = 100.0
        self.asked: list[Request] = []
        self.code: int | None = 0

    def run(self, seconds: float, answer: bool = True, success: bool = True) -> None:
        """Ticks of 20 ms; requests are answered in the next one, a status comes in each."""
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            if answer and self.asked:
                self.session.reply(self.asked[-1].number, success, self.now)
            if self.code is not None:
                self.session.status(self.code, self.now)
            self.note(self.session.tick(self.now, True))

    def note(self, request: Request | None) -> None:
        if request is not None:
            self.asked.append(request)

    def kinds(self) -> list[Ask]:
        return [request.ask for request in self.asked]


def ready() -> Bench:
    bench = Bench()
    bench.run(0.1)
    assert bench.session.phase is Phase.PAUSED
    return bench


def streaming() -> Bench:
    bench = ready()
    bench.note(bench.session.start(bench.now))
    bench.run(0.1)
    assert bench.session.phase is Phase.STREAMING
    return bench


def test_the_type_of_command_is_switched_before_anything_else() -> None:
    bench = Bench()
    assert "start servo_node" in bench.session.fault
    bench.run(0.02, answer=False)
    assert bench.kinds() == [Ask.SWITCH_TO_POSE]
    assert "being switched" in bench.session.fault
    with pytest.raises(BackendError, match="being switched"):
        bench.session.start(bench.now)
    bench.run(0.04)
    assert bench.session.fault == ""


def test_a_service_that_does_not_answer_is_asked_again_and_named() -> None:
    bench = Bench()
    bench.run(2.5, answer=False)
    assert bench.kinds() == [Ask.SWITCH_TO_POSE] * 3
    assert "does not answer switch_command_type" in bench.session.fault
    bench.run(0.1)
    assert bench.session.fault == ""


def test_a_refusal_is_a_fault_until_it_is_taken_back() -> None:
    bench = Bench()
    bench.run(0.5, success=False)
    assert "refused switch_command_type" in bench.session.fault
    bench.run(1.5)
    assert bench.session.fault == ""


def test_an_answer_to_an_older_request_counts_for_nothing() -> None:
    bench = Bench()
    bench.run(1.2, answer=False)
    first, second = bench.asked
    bench.session.reply(first.number, True, bench.now)
    assert bench.session.phase is Phase.SWITCHING
    bench.session.reply(second.number, True, bench.now)
    assert bench.session.phase is Phase.PAUSED


def test_stopping_pauses_and_starting_resumes() -> None:
    bench = streaming()
    bench.note(bench.session.stop(bench.now))
    bench.run(0.1)
    assert bench.session.phase is Phase.PAUSED
    assert bench.session.stop(bench.now) is None
    bench.note(bench.session.start(bench.now))
    bench.run(0.1)
    assert bench.kinds() == [Ask.SWITCH_TO_POSE, Ask.RESUME, Ask.PAUSE, Ask.RESUME]
    assert bench.session.phase is Phase.STREAMING


@pytest.mark.parametrize("code", [-1, 2, 5, 77])
def test_a_halt_is_one_clear_fault_and_leads_through_a_pause_back_to_readiness(code: int) -> None:
    bench = streaming()
    bench.code = code
    bench.run(0.1)
    assert bench.session.fault == "", "a single report is not believed at once"
    bench.run(0.3)
    reason = bench.session.fault
    assert "MoveIt Servo (servo_node)" in reason
    bench.code = 0
    bench.run(0.5)
    assert bench.session.fault == reason, "the arm rests before it is tried again"
    bench.run(1.0)
    assert bench.session.fault == ""
    assert bench.session.phase is Phase.PAUSED
    assert bench.kinds()[2:] == [Ask.PAUSE, Ask.SWITCH_TO_POSE]


def test_silence_is_a_fault_only_while_commands_are_sent() -> None:
    bench = ready()
    bench.code = None
    bench.run(3.0)
    assert bench.session.fault == ""
    bench.note(bench.session.start(bench.now))
    bench.run(0.8, answer=True)
    assert "told no status" in bench.session.fault


@pytest.mark.parametrize("code", [1, 3, 4, 6])
def test_slowing_down_is_told_but_is_no_fault(code: int) -> None:
    bench = streaming()
    bench.code = code
    bench.run(2.0)
    assert bench.session.fault == ""
    assert "MoveIt Servo (servo_node)" in bench.session.notice
    bench.code = 0
    bench.run(0.1)
    assert bench.session.notice == ""


def test_a_servo_that_goes_away_is_set_up_anew() -> None:
    bench = streaming()
    bench.session.tick(bench.now, False)
    assert "not there" in bench.session.fault
    bench.run(0.1)
    assert bench.session.phase is Phase.PAUSED
    assert bench.kinds()[-1] is Ask.SWITCH_TO_POSE


EVENTS = st.one_of(
    st.tuples(st.just("tick"), st.booleans()),
    st.tuples(st.just("status"), st.integers(-3, 9)),
    st.tuples(st.just("reply"), st.tuples(st.integers(0, 3), st.booleans())),
    st.tuples(st.just("start"), st.none()),
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("wait"), st.floats(0.0, 2.0)),
)


@given(st.lists(EVENTS, max_size=60))
def test_commands_are_trusted_only_after_switching_was_confirmed(
    events: list[tuple[str, object]],
) -> None:
    """Whatever happens in whatever order: no fault means that the newest switch was confirmed
    after Servo last appeared, and no resume is asked for before that."""
    session = ServoSession("servo_node")
    now, asked, confirmed = 0.0, [], False
    for kind, value in events:
        request = None
        if kind == "wait":
            now += float(value)  # type: ignore[arg-type]
        elif kind == "tick":
            confirmed = confirmed and bool(value)
            request = session.tick(now, bool(value))
        elif kind == "status":
            session.status(int(value), now)  # type: ignore[call-overload]
        elif kind == "stop":
            request = session.stop(now)
        elif kind == "start":
            if session.fault:
                with pytest.raises(BackendError):
                    session.start(now)
            else:
                request = session.start(now)
                assert confirmed
        elif asked:
            age, success = value  # type: ignore[misc]
            answered = asked[max(0, len(asked) - 1 - age)]
            if answered is asked[-1] and answered.ask is Ask.SWITCH_TO_POSE and success:
                confirmed = confirmed or session.phase is Phase.SWITCHING
            session.reply(answered.number, success, now)
        if request is not None:
            asked.append(request)
            if request.ask is Ask.SWITCH_TO_POSE:
                confirmed = False
        if not session.fault:
            assert confirmed
    assert set(Status.__members__.values()) == set(range(-1, 7))


def test_a_long_hold_is_a_pause_and_the_next_motion_resumes() -> None:
    bench = streaming()
    for _ in range(120):
        bench.note(bench.session.command(False, bench.now))
        bench.run(0.02)
    assert bench.session.phase is Phase.PAUSED
    assert bench.kinds()[-1] is Ask.PAUSE
    bench.note(bench.session.command(True, bench.now))
    assert bench.kinds()[-1] is Ask.RESUME
    bench.run(0.1)
    assert bench.session.phase is Phase.STREAMING
    assert bench.session.command(True, bench.now) is None
    assert bench.session.command(False, bench.now) is None, "it may still be on its way"


def test_a_motion_that_begins_during_the_pause_resumes_at_once() -> None:
    bench = streaming()
    bench.run(1.5)
    bench.note(bench.session.command(False, bench.now))
    assert bench.session.phase is Phase.PAUSING
    bench.note(bench.session.command(True, bench.now))
    bench.run(0.1)
    assert bench.session.phase is Phase.STREAMING
    assert bench.session.fault == ""


def test_no_motion_resumes_a_servo_that_was_stopped() -> None:
    bench = streaming()
    bench.note(bench.session.stop(bench.now))
    bench.run(0.1)
    assert bench.session.command(True, bench.now) is None
    assert bench.session.phase is Phase.PAUSED


def test_no_motion_resumes_a_servo_that_has_halted() -> None:
    bench = streaming()
    bench.code = Status.HALT_FOR_COLLISION
    bench.run(0.4)
    assert "halted before a collision" in bench.session.fault
    assert bench.session.command(True, bench.now) is None
