"""When what died is started again, and when no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.respawn import GOOD_RUN, START_FAILED, WAITS, Respawn

SHORT = st.floats(0.0, GOOD_RUN - 1e-3)
STATUS = st.integers(-15, 3)


def test_at_once_then_later_and_later_then_never() -> None:
    respawn = Respawn()
    assert [respawn.died(1, 3.0) for _ in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, None]


@given(st.lists(st.tuples(STATUS, SHORT), min_size=1, max_size=7), SHORT)
def test_a_good_run_makes_good_for_all_before(deaths: list[tuple[int, float]], more: float) -> None:
    respawn = Respawn()
    for status, ran in [(-9, 0.0), *deaths]:
        respawn.died(status, ran)
    assert respawn.died(1, GOOD_RUN + more) == WAITS[0]
    assert respawn.died(1, 0.0) == WAITS[1]


def test_what_cannot_start_with_what_it_was_given_is_dead_for_good() -> None:
    assert Respawn().died(START_FAILED, 2.0) is None
    respawn = Respawn()
    assert respawn.died(-9, 5.0) == 0.0
    assert respawn.died(START_FAILED, 2.0) == 1.0  # it has run: a server may be down for a while
