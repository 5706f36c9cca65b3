"""When each object is polled next, on a clock that the test moves."""

from random import Random

import pytest

from connector.inbound.timetable import FASTEST_S, REFUSED_RETRY_S, Timetable

HOUR_S = 3600.0


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timetable(clock: Clock) -> Timetable:
    """Two objects that were just polled at their full interval, an hour and two."""
    made = Timetable({"Contact": HOUR_S, "Lead": 2 * HOUR_S}, Random(1), clock)
    made.hurry(hasty=False)
    for name in ("Contact", "Lead"):
        made.polled(name, unclosed=False)
    return made


def due(timetable: Timetable) -> list[str]:
    return timetable.due(["Contact", "Lead"])


@pytest.mark.parametrize(("full_s", "hasty_s"), [(900.0, 60.0), (HOUR_S, 240.0), (120.0, FASTEST_S), (10.0, 10.0)])
def test_haste_while_the_stream_is_down(clock: Clock, full_s: float, hasty_s: float) -> None:
    timetable = Timetable({"Contact": full_s}, Random(1), clock)
    timetable.hurry(hasty=False)
    assert timetable.interval_s("Contact") == full_s
    timetable.hurry(hasty=True)
    assert timetable.interval_s("Contact") == hasty_s


def test_everything_is_due_at_the_start(clock: Clock) -> None:
    assert due(Timetable({"Contact": HOUR_S, "Lead": HOUR_S}, Random(1), clock)) == ["Contact", "Lead"]


def test_each_comes_at_its_interval(timetable: Timetable, clock: Clock) -> None:
    assert due(timetable) == []
    assert 0.98 * HOUR_S <= timetable.until_due_s(["Contact", "Lead"]) <= HOUR_S
    clock.now_s += HOUR_S
    assert due(timetable) == ["Contact"]


def test_what_would_be_due_soon_comes_along(timetable: Timetable, clock: Clock) -> None:
    clock.now_s += 1.9 * HOUR_S
    assert due(timetable) == ["Contact", "Lead"]


def test_what_is_asked_for_is_due_at_once_and_until_it_is_begun(timetable: Timetable) -> None:
    timetable.at_once(["Lead"])
    assert due(timetable) == ["Lead"]
    timetable.begun(["Lead"])
    assert due(timetable) == []


def test_a_stream_that_goes_brings_the_polls_forward_and_one_that_comes_does_not_put_them_off(
    timetable: Timetable, clock: Clock
) -> None:
    timetable.hurry(hasty=True)
    assert timetable.due_in_s("Contact") == HOUR_S / 15
    clock.now_s += 60.0
    timetable.hurry(hasty=False)
    assert timetable.due_in_s("Contact") == HOUR_S / 15 - 60.0


def test_a_hole_left_open_is_asked_for_again_soon_and_less_and_less_so(timetable: Timetable) -> None:
    waits_s = []
    for _ in range(12):
        timetable.polled("Contact", unclosed=True)
        waits_s.append(timetable.due_in_s("Contact"))
    for nth, wait_s in enumerate(waits_s):
        longest_s = min(HOUR_S, FASTEST_S * 2**nth)
        assert 0.97 * longest_s <= wait_s <= longest_s
    timetable.polled("Contact", unclosed=False)
    timetable.polled("Contact", unclosed=True)
    assert timetable.due_in_s("Contact") <= FASTEST_S


def test_a_refused_object_rests(timetable: Timetable, clock: Clock) -> None:
    timetable.refused("Contact")
    assert timetable.due_in_s("Contact") == REFUSED_RETRY_S
    clock.now_s += REFUSED_RETRY_S
    assert due(timetable) == ["Contact"]


def test_with_nothing_to_poll_it_is_looked_at_again_soon(timetable: Timetable) -> None:
    assert timetable.until_due_s([]) == FASTEST_S
    assert timetable.due([]) == []
