"""What the process remembers of recent applies is bounded, and the newest of it is kept."""

from connector.inbound.fence import Bounded


def test_the_oldest_half_is_forgotten_at_once() -> None:
    """Never more than the limit, never less than the newest half; what is set again is new."""
    bounded: Bounded[int, str] = Bounded(10)
    bounded.set(-1, "first")
    for number in range(100):
        bounded.set(number, f"{number}")
        if number % 3 == 0:
            bounded.set(-1, f"again {number}")
        known = [key for key in range(number + 1) if bounded.get(key) is not None]
        assert known == list(range(number + 1))[-len(known) :]
        assert min(number + 1, 4) <= len(known) <= 10
        assert bounded.get(-1) is not None
    assert bounded.get(-1) == "again 99"
    bounded.clear()
    assert [bounded.get(key) for key in (-1, 99)] == [None, None]
