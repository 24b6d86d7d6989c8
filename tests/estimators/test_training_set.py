"""The training set: images as they are given, whatever they lie in; augmentation moves pixels and makes none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from art_divqat.estimators import training_set
from art_divqat.estimators.training_set import TrainingSet, batches, crop_and_flip, from_bytes, to_bytes

CPU = torch.device("cpu")


def test_bytes_are_the_same_float32_numbers_to_the_last_bit() -> None:
    every = np.arange(256, dtype=np.uint8)
    by_numpy = every.astype(np.float32) / np.float32(255)
    by_double = (every / 255).astype(np.float32)
    torch_numbers = from_bytes(torch.from_numpy(every))
    assert torch_numbers.dtype == torch.float32
    assert torch.equal(torch_numbers, torch.from_numpy(by_numpy))
    assert torch.equal(torch_numbers, torch.from_numpy(by_double))


def test_images_of_bytes_are_kept_as_bytes_in_the_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_set, "_CHUNK", 3)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 3, 4, 5), np.uint8))
    images, rows = from_bytes(pixels), torch.tensor([7, 7, 0, 9, 3])
    kept = to_bytes(images, rows, CPU)
    assert kept is not None
    assert torch.equal(kept, pixels[rows])


@pytest.mark.parametrize("odd", [0.5, 1.5, -1 / 255, float("nan"), float("inf"), 1 / 255 + 1e-8])
@pytest.mark.parametrize("where", [0, 9])
def test_one_pixel_that_is_no_byte_and_they_stay_as_they_are(odd: float, where: int) -> None:
    images = torch.zeros(10, 1, 2, 2)
    images[where, 0, 1, 1] = odd
    assert to_bytes(images, torch.arange(10), CPU) is None
    assert to_bytes(images, torch.tensor([i for i in range(10) if i != where]), CPU) is not None


@pytest.mark.parametrize("odd", [None, 0.3])
def test_what_lies_on_the_device_gives_the_batches_that_the_images_give(
    odd: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = from_bytes(torch.from_numpy(np.random.default_rng(1).integers(0, 256, (10, 3, 4, 4), np.uint8)))
    if odd is not None:
        images[4, 0, 0, 0] = odd
    rows, labels, order = torch.tensor([4, 1, 4, 8, 0]), torch.arange(5), torch.tensor([3, 0, 4, 1, 2])
    plain = TrainingSet(images, labels, rows, CPU)
    resident = TrainingSet(images, labels, rows, CPU)
    resident._images, resident._rows = training_set._resident(images, rows, CPU), torch.arange(5)
    assert resident._images.dtype == (torch.uint8 if odd is None else torch.float32)
    for (x, y), (x_there, y_there) in zip(plain.epoch(order, 2), resident.epoch(order, 2), strict=True):
        assert torch.equal(x, x_there)
        assert torch.equal(y, y_there)
    monkeypatch.setattr(training_set, "_RESIDENT_BYTES", 16)
    assert training_set._resident(images, rows, CPU) is None


def test_images_too_large_as_numbers_still_fit_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_set, "_RESIDENT_BYTES", 2 * 16)
    images, rows = torch.zeros(4, 1, 4, 4), torch.tensor([0])
    assert training_set._resident(images, rows, CPU).dtype == torch.uint8
    images[0] = 0.3
    assert training_set._resident(images, rows, CPU) is None


def test_a_crop_is_a_window_of_the_mirrored_image_and_a_flip_turns_it() -> None:
    images = torch.from_numpy(np.random.default_rng(0).random((3, 2, 12, 11), np.float32))
    picked = torch.tensor([2, 0, 1, 2] * 50)
    found = crop_and_flip(images, picked, 4, torch.Generator().manual_seed(0))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="reflect")
    seen = set()
    for image, number in zip(found.numpy(), picked.tolist(), strict=True):
        windows = {
            (i, j, flip): padded[number, :, i : i + 12, j : j + 11][:, :, :: -1 if flip else 1]
            for i in range(9)
            for j in range(9)
            for flip in (False, True)
        }
        where = [key for key, window in windows.items() if np.array_equal(window, image)]
        assert len(where) == 1
        seen.add(where[0])
    assert {i for i, _, _ in seen} == {j for _, j, _ in seen} == set(range(9))
    assert {flip for _, _, flip in seen} == {False, True}


def test_flips_alone_move_nothing() -> None:
    images = torch.from_numpy(np.random.default_rng(0).random((40, 1, 5, 5), np.float32))
    found = crop_and_flip(images, torch.arange(40), 0, torch.Generator().manual_seed(1))
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(found, images, strict=True)]
    assert all(is_turned or torch.equal(a, b) for is_turned, a, b in zip(turned, found, images, strict=True))
    assert 8 < sum(turned) < 32


@pytest.mark.parametrize("side", [1, 2, 3])
def test_images_smaller_than_the_move_keep_their_own_pixels(side: int) -> None:
    image = torch.arange(1.0, side * side + 1).reshape(1, 1, side, side)
    found = crop_and_flip(image, torch.zeros(30, dtype=torch.int64), 4, torch.Generator().manual_seed(0))
    assert found.shape == (30, 1, side, side)
    assert set(found.flatten().tolist()) <= set(image.flatten().tolist())


def test_augmented_bytes_are_augmented_numbers() -> None:
    pixels = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (6, 3, 8, 8), np.uint8))
    picked = torch.tensor([5, 0, 3])
    as_bytes = crop_and_flip(pixels, picked, 4, torch.Generator().manual_seed(5))
    as_numbers = crop_and_flip(from_bytes(pixels), picked, 4, torch.Generator().manual_seed(5))
    assert torch.equal(from_bytes(as_bytes), as_numbers)


def test_batches_come_in_the_memory_format_that_was_asked_for() -> None:
    data = TrainingSet(torch.zeros(4, 3, 8, 8), torch.arange(4), None, CPU, augmentation="flip")
    assert next(data.epoch(torch.arange(4), 4))[0].is_contiguous()
    data.memory_format = torch.channels_last
    assert next(data.epoch(torch.arange(4), 4))[0].is_contiguous(memory_format=torch.channels_last)


def test_no_last_batch_of_one() -> None:
    assert [len(part) for part in batches(torch.arange(9), 4)] == [4, 5]
    assert [len(part) for part in batches(torch.arange(1), 4)] == [1]
