"""The choice of float layers against brute force over all subsets."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from edgedl.compress.quantize.search.choose_float import (
    Part,
    excess,
    find_candidates,
    rank_choices,
)

NAMES = "abcde"
amounts = st.integers(0, 50).map(float)
parts_of = st.lists(
    st.builds(
        Part,
        st.tuples(amounts, amounts),
        st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=8,
)
costs_of = st.fixed_dictionaries({name: st.integers(0, 9).map(float) for name in NAMES})


def every_subset() -> list[set[str]]:
    return [
        {name for name, taken in zip(NAMES, mask, strict=True) if taken}
        for mask in product((False, True), repeat=len(NAMES))
    ]


def left(parts: list[Part], kept: set[str], column: int) -> float:
    total = 0.0
    for part in parts:
        if any(name not in kept for name in part.needs):
            total += part.amounts[column]
    return total


@given(parts_of, costs_of, amounts, amounts, st.integers(0, 30), st.integers(1, 5))
def test_the_first_choice_is_the_cheapest_that_meets_both_limits(
    parts, costs, first_limit, second_limit, max_cost, max_layers
):
    limits = (first_limit, second_limit)
    found = rank_choices(parts, costs, limits, max_cost, max_layers)
    affordable = [
        kept
        for kept in every_subset()
        if len(kept) <= max_layers and sum(costs[n] for n in kept) <= max_cost
    ]
    assert {c.kept for c in found} == {frozenset(kept) for kept in affordable}
    meeting = [k for k in affordable if all(left(parts, k, i) <= limits[i] for i in (0, 1))]
    best = found[0]
    if meeting:
        assert best.excess == 0
        assert all(left(parts, best.kept, i) <= limits[i] for i in (0, 1))
        assert best.cost == min(sum(costs[n] for n in k) for k in meeting)
    else:
        assert best.excess > 0
    assert best.remaining == tuple(left(parts, best.kept, i) for i in (0, 1))


@given(parts_of, costs_of, st.integers(0, 30), st.integers(1, 5))
def test_with_no_damage_allowed_the_first_choice_leaves_least(parts, costs, max_cost, max_layers):
    single = [Part(p.amounts[:1], p.needs) for p in parts]
    best = rank_choices(single, costs, (0.0,), max_cost, max_layers)[0]
    reachable = [
        left(single, kept, 0)
        for kept in every_subset()
        if len(kept) <= max_layers and sum(costs[n] for n in kept) <= max_cost
    ]
    assert best.remaining == (min(reachable),)


def test_nothing_is_kept_if_nothing_can_be_paid_for():
    parts = [Part((3.0,), frozenset("a"))]
    (only,) = rank_choices(parts, {"a": 0.5}, (1.0,), 0.4, 1)
    assert only.kept == frozenset()
    assert only.excess == 2 / 3


def test_candidates_are_the_layers_of_the_largest_parts_that_fit():
    parts = [
        Part((9.0,), frozenset("abc")),
        Part((5.0,), frozenset("d")),
        Part((4.0,), frozenset("de")),
        Part((3.0,), frozenset("ab")),
        Part((1.0,), frozenset("a")),
    ]
    assert find_candidates(parts, 3, 2) == ["d", "e", "a"]
    assert find_candidates(parts, 3, 3) == ["a", "b", "c"]
    assert find_candidates([Part((1.0,), frozenset())], 3, 3) == []


def test_a_limit_counts_only_where_there_is_damage():
    assert excess([0.0, 2.0], [0.0, 1.0], [0.0, 4.0]) == 0.25
    assert excess([0.0], [0.0], [0.0]) == 0.0
