"""The rate of each step."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emslice.training.schedule import Schedule

KINDS = ("constant", "poly", "one_cycle")


def schedule(kind="poly", rate=0.5, end_rate=0.125, steps=40, warmup=0, power=1.5):
    return Schedule(kind, rate, end_rate, steps, warmup, power)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_grows_in_equal_parts_and_then_is_whole(kind):
    found = [schedule(kind, warmup=4).at(step) for step in range(5)]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("kind", KINDS)
def test_without_warm_up_the_first_step_has_the_whole_rate(kind):
    assert schedule(kind).at(0) == 0.5


def test_a_constant_rate_stays_whatever_the_end_rate_is():
    assert {schedule("constant", warmup=3).at(step) for step in (3, 20, 39, 40, 99)} == {0.5}


@pytest.mark.parametrize("warmup", [0, 7])
def test_poly_is_the_published_formula(warmup):
    """lr = (base - end) (1 - (it - warmup) / decay_iters)**power + end."""
    base, end, power, decay_iters = 1e-4, 1e-6, 1.5, 33
    made = schedule("poly", base, end, warmup + decay_iters, warmup, power)
    for it in range(warmup, warmup + decay_iters + 1):
        expected = (base - end) * (1 - (it - warmup) / decay_iters) ** power + end
        assert made.at(it) == pytest.approx(expected, rel=1e-12)


def test_a_power_of_one_falls_in_equal_parts():
    found = [schedule(steps=3, power=1).at(step) for step in range(4)]
    assert found == pytest.approx([0.5, 0.375, 0.25, 0.125])


def test_one_cycle_is_half_way_down_in_the_middle():
    made = schedule("one_cycle", steps=46, warmup=6)
    assert made.at(26) == pytest.approx((0.5 + 0.125) / 2)


@pytest.mark.parametrize("kind", ["poly", "one_cycle"])
def test_the_end_rate_is_that_of_the_step_after_the_last_and_of_all_later(kind):
    made = schedule(kind, warmup=7)
    assert made.at(39) > 0.125  # the last step still learns more
    assert [made.at(step) for step in (40, 41, 1000)] == pytest.approx([0.125] * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_is_all_warm_up_has_a_rate_at_each_step(kind):
    made = schedule(kind, steps=3, warmup=3)
    assert [made.at(step) for step in range(3)] == pytest.approx([0.125, 0.25, 0.375])
    assert made.at(3) == 0.5


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rate=st.floats(1e-8, 10),
    share=st.floats(0, 1),
    steps=st.integers(1, 60),
    warm=st.floats(0, 1),
    power=st.floats(0.1, 5),
)
def test_rates_rise_while_warming_up_and_fall_after(kind, rate, share, steps, warm, power):
    end, warmup = rate * share, int(warm * steps)
    made = schedule(kind, rate, end, steps, warmup, power)
    rates = [made.at(step) for step in range(steps + 5)]
    rising, falling = rates[: warmup + 1], rates[warmup:]
    room = 1e-12 * rate
    assert all(0 < value <= rate + room for value in rising)
    assert all(b > a for a, b in itertools.pairwise(rising))
    assert all(max(0, end - room) <= value <= rate + room for value in falling)
    assert all(b <= a + room for a, b in itertools.pairwise(falling))
