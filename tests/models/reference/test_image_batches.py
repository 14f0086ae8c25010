"""Augmented pictures are shifted and mirrored originals, found again by brute force."""

from itertools import product

import numpy as np
import pytest
import torch

from edgedl.models.reference.image_batches import Augmentation, ImageBatches


def epoch(batches, seed=0):
    return list(batches.epoch(torch.Generator().manual_seed(seed)))


def joined(batches, seed=0):
    """Return one epoch as uint8 pictures [N, H, W, C] and labels [N]."""
    drawn = epoch(batches, seed)
    images = torch.cat([x for x, _ in drawn]).numpy() * 255
    assert np.abs(images - images.round()).max() < 1e-3
    return images.round().astype(np.uint8).transpose(0, 2, 3, 1), np.concatenate(
        [y.numpy() for _, y in drawn]
    )


def variants(image, shift, flip):
    """Yield every picture that augmentation may make of one: ((dy, dx, mirrored), picture)."""
    height, width, _ = image.shape
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
    for top, left in product(range(2 * shift + 1), repeat=2):
        cut = padded[top : top + height, left : left + width]
        yield (top - shift, left - shift, False), cut
        if flip:
            yield (top - shift, left - shift, True), cut[:, ::-1]


def test_without_augmentation_an_epoch_is_a_permutation(small_split):
    split = small_split(24)
    images, labels = joined(ImageBatches(split, 6, Augmentation(shift=0, flip=False)))
    originals = [x.tobytes() for x in split.images]
    places = [originals.index(x.tobytes()) for x in images]
    assert sorted(places) == list(range(24))
    assert places != sorted(places)
    np.testing.assert_array_equal(labels, split.labels[places])


def test_values_types_and_shapes(small_split):
    batches = ImageBatches(small_split(24), 6, Augmentation(shift=2, flip=True))
    drawn = epoch(batches)
    assert len(batches) == len(drawn) == 4
    for x, y in drawn:
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.shape == (6, 3, 6, 5)
        assert 0 <= x.min() < x.max() <= 1


@pytest.mark.parametrize(("count", "size", "expected"), [(24, 7, 3), (5, 6, 0), (6, 6, 1)])
def test_last_incomplete_batch_is_dropped(small_split, count, size, expected):
    batches = ImageBatches(small_split(count), size, Augmentation(shift=1, flip=True))
    drawn = epoch(batches)
    assert len(batches) == len(drawn) == expected
    assert all(len(y) == size for _, y in drawn)


@pytest.mark.parametrize(("shift", "flip"), [(2, True), (2, False), (1, True), (0, True)])
def test_every_picture_is_a_variant_of_its_original(small_split, shift, flip):
    split = small_split(400, (7, 6, 3))
    images, labels = joined(ImageBatches(split, 100, Augmentation(shift, flip)))
    known = {
        cut.tobytes(): (index, how)
        for index, image in enumerate(split.images)
        for how, cut in variants(image, shift, flip)
    }
    found = [known[image.tobytes()] for image in images]
    assert sorted(index for index, _ in found) == list(range(400))
    np.testing.assert_array_equal(labels, split.labels[[index for index, _ in found]])
    used = [how for _, how in found]
    # Every shift occurs in both directions, and each picture draws its own.
    assert {dy for dy, _, _ in used} == {dx for _, dx, _ in used} == set(range(-shift, shift + 1))
    assert len(set(used)) == (2 * shift + 1) ** 2 * (2 if flip else 1)
    mirrored = np.mean([m for _, _, m in used])
    assert (0.4 < mirrored < 0.6) if flip else mirrored == 0


def test_generator_decides(small_split):
    batches = ImageBatches(small_split(40), 10, Augmentation(shift=2, flip=True))
    (one, _), (again, _), (other, _) = (joined(batches, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_two_epochs_of_a_generator_differ_and_the_split_stays(small_split):
    split = small_split(40)
    before = split.digest()
    batches = ImageBatches(split, 10, Augmentation(shift=1, flip=True))
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.cat([x for x, _ in batches.epoch(generator)]) for _ in range(2))
    assert not torch.equal(first, second)
    assert split.digest() == before


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutout_makes_one_square_grey_wherever_its_middle_is(small_split, side):
    split = small_split(24)
    seen = set()
    for seed in range(20):
        (drawn,) = epoch(
            ImageBatches(split, 24, Augmentation(shift=0, flip=False, cutout=side)), seed
        )
        (plain,) = epoch(ImageBatches(split, 24, Augmentation(shift=0, flip=False)), seed)
        for erased, original in zip(drawn[0], plain[0], strict=True):
            changed = (erased != original).any(0)
            rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
            assert torch.all(changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            assert torch.all(erased[:, changed] == 0.5)
            seen.add((int(rows[0]), int(columns[0]), len(rows), len(columns)))
        torch.testing.assert_close(drawn[1], plain[1])
    height, width = split.images.shape[1:3]
    middles = range(-(side // 2), height - side // 2), range(-(side // 2), width - side // 2)
    expected = {
        (max(top, 0), max(left, 0), *(
            min(start + side, size) - max(start, 0)
            for start, size in ((top, height), (left, width))
        ))
        for top, left in product(*middles)
    }  # fmt: skip
    assert seen == expected
