"""Batches of texts: what is hidden, what is told, and that nothing else changes."""

import torch

from edgedl.models.reference.text_batches import NOT_TOLD, MaskedBatches, TextBatches

PADDING, UNKNOWN, HIDDEN, FIRST, VOCABULARY, LENGTH = 0, 1, 2, 3, 50, 40


def tokens(count: int = 600) -> torch.Tensor:
    """Return texts of 1 to 40 words; every seventh word is unknown."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST, VOCABULARY, (count, LENGTH), generator=generator)
    ids[:, 6::7] = UNKNOWN
    lengths = torch.randint(1, LENGTH + 1, (count, 1), generator=generator)
    return ids.masked_fill(torch.arange(LENGTH) >= lengths, PADDING)


def epoch(batches, seed: int = 0):
    return list(batches.epoch(torch.Generator().manual_seed(seed)))


def test_texts_keep_their_labels_and_lose_a_share_of_words() -> None:
    ids = tokens()
    batches = TextBatches(ids, torch.arange(600), 64, 0.2)
    found = epoch(batches)
    assert len(batches) == len(found) == 600 // 64
    labels = torch.cat([y for _, y in found])
    assert len(set(labels.tolist())) == 9 * 64
    shown = torch.cat([x for (x, _), _ in found])
    mask = torch.cat([m for (_, m), _ in found])
    assert torch.equal(mask, (ids[labels] != PADDING).long())
    hidden = shown == HIDDEN
    assert torch.equal(shown[~hidden], ids[labels][~hidden])
    assert abs(float(hidden.sum() / mask.sum()) - 0.2) < 0.02
    assert not (hidden & (mask == 0)).any()


def test_nothing_hidden() -> None:
    ((shown, _), labels), *_ = epoch(TextBatches(tokens(), torch.arange(600), 64, 0.0))
    assert torch.equal(shown, tokens()[labels])


def test_order_is_the_generators() -> None:
    batches = TextBatches(tokens(), torch.arange(600), 64, 0.2)
    one, two, three = (epoch(batches, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0][1], three[0][1])


def test_told_words_are_those_at_their_places() -> None:
    ids = tokens()
    batches = MaskedBatches(ids, VOCABULARY, 60)
    by_text = {tuple(row.tolist()) for row in ids}
    told, hidden, same, count, known = 0, 0, 0, 0, 0
    for (shown, mask, places), words in epoch(batches):
        telling = words != NOT_TOLD
        # Putting the words back gives texts of the set.
        kept = shown.gather(1, places)
        restored = shown.scatter(1, places, torch.where(telling, words, kept))
        assert {tuple(row.tolist()) for row in restored} <= by_text
        assert torch.equal(mask, (restored != PADDING).long())
        assert (words[telling] >= FIRST).all()
        assert (telling.sum(1) >= 1).logical_or((restored >= FIRST).sum(1) == 0).all()
        told += int(telling.sum())
        hidden += int((kept[telling] == HIDDEN).sum())
        same += int((kept == words)[telling].sum())
        known += int((restored >= FIRST).sum())
        count += len(words)
    assert count == 600
    assert abs(told / known - 0.15) < 0.02
    assert abs(hidden / told - 0.8) < 0.03
    assert abs(same / told - 0.1) < 0.03
