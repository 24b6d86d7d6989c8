"""The network in training, whole or cut in two halves (if features are mixed, or the body is frozen)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from art_divqat.defences.trainer._body_cache import kept_tensors
from art_divqat.defences.trainer._preparation import SeenImages, evaluation_batch, some_of
from art_divqat.defences.trainer.centring import Centring
from art_divqat.quantization import QuantizationBackend
from art_divqat.quantization.halves import Halves

_CALIBRATION_IMAGES = 512
_BATCH = 256
_FEATURES = "features of the body"


class Student:
    """A prepared network, called with images, or with features if its body is frozen.

    :param network: of :meth:`~art_divqat.quantization.QuantizationBackend.prepare`; nothing was trained yet.
    :param train_body: whether all of it is trained. If not, its body is calibrated on `images` and then left alone.
    :param mixes: whether features will be mixed.
    :param images: preprocessed training images.
    :param cache: a folder for what a body that stays as it is makes of images; None keeps nothing.
    :ivar centring: of a hidden layer's steps, if any.
    :raises UserError: for a network that cannot be cut in halves where that is needed.
    """

    def __init__(
        self,
        network: nn.Module,
        backend: QuantizationBackend,
        images: SeenImages,
        *,
        train_body: bool,
        mixes: bool,
        cache: Path | None = None,
    ) -> None:
        self.network = network
        self.train_body = train_body
        self.centring: Centring | None = None
        self._halves = None if train_body and not mixes else Halves(network)
        self._teacher: nn.Module | None = None
        self._cache = cache
        if self._halves is None:
            return
        if mixes:
            original = copy.deepcopy(network)
            backend.set_mode(original, training=False, observe=False, fake_quantize=False)
            self._teacher = Halves(original).head.requires_grad_(False)
        if not train_body:
            self._calibrate(backend, some_of(images, _CALIBRATION_IMAGES))
            self._halves.body.requires_grad_(False)
            # of its own mode, whatever the head is in
            self._body = Halves(backend.freeze(network).network).body

    def __call__(self, images: Tensor) -> Tensor:
        """What the network gives for images, or for features where its body stays as it is."""
        network = self.network if self.train_body else self.head
        answers: Tensor = network(images)
        return answers

    def features(self, images: Tensor) -> Tensor:
        """The body's features of images; features are returned unchanged."""
        assert self._halves is not None
        return self._halves.body(images) if self.train_body else images  # type: ignore[no-any-return]

    @property
    def head(self) -> nn.Module:
        """The half that is trained in any case."""
        assert self._halves is not None
        return self._halves.head

    def teachers_head(self, features: Tensor) -> Tensor:
        """What the full-precision network gives for features."""
        assert self._teacher is not None
        with torch.no_grad():
            return self._teacher(features)  # type: ignore[no-any-return]

    def seen(self, images: SeenImages) -> SeenImages:
        """The network's input for images: the images themselves, or their features, each computed once."""
        return images if self.train_body else self._pass(self._body, images)

    def follow(self, *, training: bool) -> None:
        """Take the halves as they are in the mode that the network was set to."""
        if self._halves is not None:
            self._halves.follow(training=training)

    def _calibrate(self, backend: QuantizationBackend, images: SeenImages) -> None:
        """As the backend calibrates, one half after the other: a body whose ranges are kept is not run."""
        assert self._halves is not None
        backend.set_mode(self.network, training=False, observe=True, fake_quantize=False)
        self._halves.follow(training=False)
        features = self._pass(self._halves.body, images)
        with torch.no_grad():
            for part in features.split(evaluation_batch(images, _BATCH)):
                self._halves.head(part)
        backend.set_mode(self.network, training=False, observe=False)

    def _pass(self, body: nn.Module, images: SeenImages) -> Tensor:
        """The features of images; the body is left with the ranges that it observed, if it observes."""
        size = evaluation_batch(images, _BATCH)

        def run() -> dict[str, Tensor]:
            with torch.no_grad():
                features = torch.cat([body(part) for part in images.split(size)])
            return {_FEATURES: features, **dict(body.named_buffers())}

        kept = kept_tensors(self._cache, body, images.split(size), run)
        features = kept.pop(_FEATURES)
        body.load_state_dict(kept, strict=False)
        return features
