"""What the entries name: imported at first use, so torch and ART may be imported here."""

import math
from typing import ClassVar

import numpy as np
from sklearn.datasets import load_digits
from torch import nn

from art_divqat.attacks.extraction import AttackContext, AttackOutcome
from art_divqat.attacks.recovery import Recovery, RecoveryRequest
from art_divqat.data import RawImages
from art_divqat.defences.postprocessor import ProbabilityPostprocessor
from art_divqat.specs import Spec
from art_divqat.victims.training import VictimContext
from art_divqat_example.entries import SHARE, SMOOTHED_LABELS


def contrast_first(context: AttackContext) -> AttackOutcome:
    contrast = np.array([image.std() for image in context.pool])
    highest_first = context.parameters["order"] == "highest"
    order = np.argsort(-contrast if highest_first else contrast, kind="stable")
    images = context.pool[order[: context.budget]]
    thief = context.build_thief()
    thief.fit(images, context.victim.predict(images))
    return AttackOutcome(thief, {"mean_contrast": float(contrast[order[: context.budget]].mean())})


class Sharpen(Recovery):
    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def restore(self, answers):
        logs = np.log(np.maximum(answers, 1e-12)) / self.temperature
        rows = np.exp(logs - logs.max(axis=1, keepdims=True))
        return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def sharpen(request: RecoveryRequest) -> Recovery:
    return Sharpen(request.values["temperature"])


class MixUniform(ProbabilityPostprocessor):
    params: ClassVar = ["share", "input_type"]
    parameters: ClassVar = SHARE

    def __init__(self, share=SHARE["share"].default, input_type="auto", apply_fit=False, apply_predict=True) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.share = share
        self._check_params()

    def _perturb(self, rows):
        return ((1 - self.share) * rows + self.share / rows.shape[1]).astype(rows.dtype)


def smoothed_labels(context: VictimContext, spec: Spec):
    smoothing = spec.as_dict.get("smoothing", SMOOTHED_LABELS.parameters["smoothing"].default)
    classes = context.dataset.nb_classes
    labels = np.eye(classes, dtype=np.float32)[context.dataset.y_train]
    classifier = context.fresh_classifier()
    classifier.fit(context.dataset.x_train, (1 - smoothing) * labels + smoothing / classes)
    return classifier


def one_hidden_layer(input_shape: tuple[int, int, int], nb_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), 64), nn.GELU(), nn.Linear(64, nb_classes))


def inverted_digits(data_root, download: bool) -> RawImages:
    digits = load_digits()
    x = (1 - digits.images / 16).astype(np.float32)[:, None]
    return RawImages("inverted-digits", x, digits.target, None, None, tuple("0123456789"), ("inverted",))


def gradients(shape: tuple[int, int, int], n: int, seed: int):
    channels, height, width = shape
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, (n, 1, 1, 1))
    from_low_to_high = np.cos(angle) * np.linspace(-1, 1, height)[:, None] + np.sin(angle) * np.linspace(-1, 1, width)
    weight = (from_low_to_high / np.sqrt(2) + 1) / 2
    low, high = random.random((2, n, channels, 1, 1))
    return np.clip((1 - weight) * low + weight * high, 0, 1).astype(np.float32)
