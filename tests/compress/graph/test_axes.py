"""Axes: what unification finds, and which positions stay."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgedl.compress.graph.axes import Axis, channels_of, kept_positions, unify


def sizes(axis: Axis) -> list[int]:
    return [leaf.size for leaf in axis.leaves()]


def test_a_leaf_takes_the_shape_of_a_composite() -> None:
    flat, heads, width = Axis(24), Axis(4), Axis(6)
    unify(flat, Axis.product([heads, width]), "here")
    assert list(flat.leaves()) == [heads.root(), width.root()]


def test_products_of_other_factors_are_split_until_they_fit() -> None:
    flat = Axis(24)
    unify(flat, Axis.product([Axis(4), Axis(6)]), "here")
    unify(flat, Axis.product([Axis(2), Axis(12)]), "there")
    assert sizes(flat) == [2, 2, 6]


def test_sums_of_other_terms_are_split_until_they_fit() -> None:
    whole = Axis(10)
    unify(whole, Axis.sum([Axis(4), Axis(6)]), "here")
    unify(whole, Axis.sum([Axis(7), Axis(3)]), "there")
    assert sizes(whole) == [4, 3, 3]


def test_what_has_no_common_arrangement_is_frozen() -> None:
    product, total = Axis.product([Axis(2), Axis(3)]), Axis.sum([Axis(2), Axis(4)])
    unify(product, total, "'layer'")
    assert all("'layer'" in leaf.frozen for a in (product, total) for leaf in a.leaves())
    uneven, even = Axis.product([Axis(4), Axis(9)]), Axis.product([Axis(6), Axis(6)])
    unify(uneven, even, "'layer'")
    assert all(leaf.frozen for a in (uneven, even) for leaf in a.leaves())


def test_freezing_reaches_what_is_found_to_be_the_same_later() -> None:
    flat, first = Axis(6, "an output"), Axis(2)
    unify(Axis.product([first, Axis(3)]), flat, "here")
    assert first.root().frozen == "an output"


def test_unequal_sizes_cannot_be_the_same() -> None:
    with pytest.raises(ValueError, match="'layer' joins an axis of 3 with one of 4"):
        unify(Axis(3), Axis(4), "'layer'")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_positions_of_a_product_are_those_of_the_block(
    shape: list[int], data: st.DataObject
) -> None:
    factors = [Axis(size) for size in shape]
    picked = [
        sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))) if n > 1 else [0]
        for n in shape
    ]
    block = torch.arange(int(torch.tensor(shape).prod())).view(shape)
    for axis, wanted in enumerate(picked):
        block = block.index_select(axis, torch.tensor(wanted))
    kept = {f: torch.tensor(p) for f, p in zip(factors, picked, strict=True)}
    assert kept_positions(Axis.product(factors), kept).tolist() == block.flatten().tolist()


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.data())
def test_every_position_belongs_to_the_channel_that_keeps_it(
    shape: list[int], data: st.DataObject
) -> None:
    terms = [Axis(size) for size in shape]
    inner = Axis(3)
    whole = Axis.sum([*terms[:1], Axis.product([inner, Axis(2)]), *terms[1:]])
    leaf = data.draw(st.sampled_from([inner, *terms]))
    channel = data.draw(st.integers(0, leaf.size - 1))
    others = torch.tensor([c for c in range(leaf.size) if c != channel], dtype=torch.int64)
    stays = kept_positions(whole, {leaf: others})
    gone = set(range(whole.size)) - set(stays.tolist())
    owners = channels_of(whole, leaf)
    assert gone == set((owners == channel).nonzero().flatten().tolist())
