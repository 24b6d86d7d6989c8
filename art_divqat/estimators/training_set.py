"""Training set: images and labels on the training device, in batches, augmented if the recipe says so."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from art_divqat._rng import torch_generator
from art_divqat.data.stored import StoredImages

# A training set up to this size lives on the accelerator; a larger one is sent batch by batch.
_RESIDENT_BYTES = 2 * 2**30
# pixels that a crop may be moved by
_SHIFT = 4
_CHUNK = 8192


def batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cut an order of indices into batches, never leaving a last batch of one (batch norm cannot train on it).

    >>> [len(batch) for batch in batches(torch.arange(9), 4)]
    [4, 5]
    """
    parts = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return parts


class TrainingSet:
    """Images and labels of a training run, on its device.

    On a GPU the training images are in GPU memory, as bytes if all pixels are exactly k / 255; the network sees the
    same float32 values to the last bit.

    :param images: float32 (N, C, H, W), on the CPU, or stored ones, which come from their file a batch at a time.
    :param labels: class ids (M,) or rows of probabilities (M, classes), on the CPU.
    :param rows: which image each label belongs to, (M,); all in their order if None. They may repeat.
    :param device: where batches are wanted.
    :param augmentation: `none`, `flip`, or `crop-flip`; see :class:`art_divqat.estimators.TrainingRecipe`.
    :param seed: of the augmentation.

    >>> data = TrainingSet(torch.zeros(4, 1, 8, 8), torch.arange(4), None, torch.device("cpu"))
    >>> [labels.tolist() for _, labels in data.epoch(torch.tensor([3, 1, 0, 2]), batch_size=2)]
    [[3, 1], [0, 2]]
    """

    def __init__(
        self,
        images: Tensor | StoredImages,
        labels: Tensor,
        rows: Tensor | None,
        device: torch.device,
        *,
        augmentation: str = "none",
        seed: int = 0,
    ) -> None:
        self.memory_format = torch.contiguous_format
        self._device = device
        self._augmentation = augmentation
        self._labels = labels.to(device)
        rows = torch.arange(len(labels)) if rows is None else rows
        self._images: Tensor | StoredImages = images
        self._rows = rows
        resident = None if device.type == "cpu" else _resident(images, rows, device)
        if resident is not None:
            self._images, self._rows = resident, torch.arange(len(rows))
        self._place = torch.device("cpu") if isinstance(self._images, StoredImages) else self._images.device
        self._generator = torch_generator("training augmentation", seed, device=str(self._place))

    def __len__(self) -> int:
        return len(self._rows)

    def first(self, count: int) -> Tensor:
        """The first images, not augmented."""
        return self._on_device(pick(self._images, self._rows[:count].to(self._place)))

    def epoch(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images and labels in this order, on the device; indices are transferred once."""
        pictures = batches(self._rows[order].to(self._place), batch_size)
        answers = batches(order.to(self._device), batch_size)
        for picture, answer in zip(pictures, answers, strict=True):
            yield self._batch(picture), self._labels[answer]

    def _batch(self, picked: Tensor) -> Tensor:
        images = self._images
        if self._augmentation == "none":
            return self._on_device(pick(images, picked))
        if isinstance(images, StoredImages):
            images, picked = pick(images, picked), torch.arange(len(picked))
        shift = _SHIFT if self._augmentation == "crop-flip" else 0
        return self._on_device(crop_and_flip(images, picked, shift, self._generator))

    def _on_device(self, batch: Tensor) -> Tensor:
        batch = batch.to(self._device, non_blocking=True)
        batch = from_bytes(batch) if batch.dtype == torch.uint8 else batch
        if self._augmentation != "none":
            # a copy even of what counts as contiguous: one channel's strides are ambiguous, and convolutions read them
            return batch.clone(memory_format=self.memory_format)
        return batch if self._device.type == "cpu" else batch.contiguous(memory_format=self.memory_format)


def pick(images: Tensor | StoredImages, picked: Tensor) -> Tensor:
    """images[picked]; for stored images in their stored form, on the CPU."""
    if isinstance(images, StoredImages):
        return torch.from_numpy(images.bytes_of(picked.numpy()))
    return images[picked]


def crop_and_flip(images: Tensor, picked: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Some of the images, each shifted by up to `shift` pixels each way and mirrored left to right at random.

    Edges are mirrored. A single gather, on the device of the images, for any type of pixel.

    :param images: (N, C, H, W).
    :param picked: which of them, (M,), on their device.
    :param generator: of that device.
    :return: (M, C, H, W), in channels-last memory.

    >>> image = torch.arange(3.0).reshape(1, 1, 1, 3)
    >>> generator = torch.Generator().manual_seed(0)
    >>> sorted(crop_and_flip(image, torch.zeros(8, dtype=torch.int64), 0, generator).flatten(1).unique(dim=0).tolist())
    [[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]
    """
    count, device = len(picked), picked.device
    height, width = images.shape[2:]
    moves = torch.randint(-shift, shift + 1, (2, count, 1), generator=generator, device=device)
    mirrored = torch.rand((count, 1), generator=generator, device=device) < 0.5
    rows = _mirrored_at_edges(torch.arange(height, device=device) + moves[0], height)
    columns = _mirrored_at_edges(torch.arange(width, device=device) + moves[1], width)
    columns = torch.where(mirrored, columns.flip(1), columns)
    # indices on both sides of a slice come first in what is gathered: (M, H, W, C)
    gathered = images[picked[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return gathered.permute(0, 3, 1, 2)


def _mirrored_at_edges(index: Tensor, size: int) -> Tensor:
    """…, 2, 1, 0, 1, 2, …, size − 2, size − 1, size − 2, …; the other edge where an image is smaller than the move."""
    return (size - 1 - (size - 1 - index.abs()).abs()).clamp(0, size - 1)


def to_bytes(images: Tensor | StoredImages, rows: Tensor, device: torch.device) -> Tensor | None:
    """images[rows] as bytes on the device, if every pixel is exactly the float32 number k / 255; None if not."""
    kept = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), _CHUNK):
        chunk = pick(images, rows[start : start + _CHUNK]).to(device)
        part = kept[start : start + len(chunk)]
        if chunk.dtype == torch.uint8:
            part.copy_(chunk)
            continue
        part.copy_((chunk * 255).round().clamp(0, 255))
        if not torch.equal(from_bytes(part), chunk):
            return None
    return kept


def from_bytes(images: Tensor) -> Tensor:
    """The float32 numbers k / 255, rounded as numpy and the CPU round them.

    >>> from_bytes(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    # a tensor on the device: by a Python number CUDA multiplies with the rounded reciprocal instead
    return images.float() / torch.full((), 255.0, device=images.device)


def _resident(images: Tensor | StoredImages, rows: Tensor, device: torch.device) -> Tensor | None:
    """images[rows] on the device, as bytes or as they are; None if they are too large for it."""
    pixels = len(rows) * math.prod(images.shape[1:])
    if pixels < _RESIDENT_BYTES:
        kept = to_bytes(images, rows, device)
        if kept is not None:
            return kept
    if 4 * pixels >= _RESIDENT_BYTES:
        return None
    kept = torch.empty((len(rows), *images.shape[1:]), dtype=torch.float32, device=device)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        kept[start : start + len(part)] = pick(images, part).to(device)
    return kept
