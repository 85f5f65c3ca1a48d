from __future__ import annotations

import pytest
import torch

from bocr_onnx.data.augmentation import Augmentation
from bocr_onnx.errors import DataError
from bocr_onnx.training import augment


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BATCH = torch.arange(1, 1 + 64 * 2 * 5 * 6, dtype=torch.float32).reshape(64, 2, 5, 6)


def test_nothing_asked_for_is_nothing_done() -> None:
    generator = drawn()
    before = generator.get_state()
    assert augment(BATCH, Augmentation(), generator) is BATCH
    assert torch.equal(generator.get_state(), before)


def test_a_flip_mirrors_about_half_of_the_samples_whole() -> None:
    found = augment(BATCH, Augmentation(flip=True), drawn())
    kept = (found == BATCH).flatten(1).all(1)
    mirrored = (found == BATCH.flip(3)).flatten(1).all(1)
    assert bool((kept ^ mirrored).all())
    assert 16 < int(mirrored.sum()) < 48


def test_a_crop_is_a_window_of_the_padded_sample_the_same_for_all_channels() -> None:
    pad = 2
    found = augment(BATCH, Augmentation(pad=pad), drawn())
    padded = torch.nn.functional.pad(BATCH, (pad,) * 4)
    seen = set()
    for got, source in zip(found, padded, strict=True):
        places = [
            (top, left)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            if torch.equal(got, source[:, top : top + 5, left : left + 6])
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 10


def test_the_generator_decides() -> None:
    both = Augmentation(flip=True, pad=1)
    assert torch.equal(augment(BATCH, both, drawn(1)), augment(BATCH, both, drawn(1)))
    assert not torch.equal(augment(BATCH, both, drawn(1)), augment(BATCH, both, drawn(2)))


def test_a_negative_pad_is_an_error() -> None:
    with pytest.raises(DataError, match=r"augment\.pad must be a whole number from 0 to 256, got -1"):
        Augmentation(pad=-1)
