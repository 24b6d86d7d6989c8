"""Models: network architectures by name, logit-valued modules for float32 NCHW images in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "registry": ["MODELS", "build_model", "list_models", "model_summary"],
        "small": ["LeNet5", "SmallCNN", "TwoLayerPerceptron"],
        "resnet": ["CifarResNet"],
        "weights": ["describe_weights", "load_public", "public_body"],
    },
)

if TYPE_CHECKING:
    from art_divqat.models.registry import MODELS as MODELS
    from art_divqat.models.registry import build_model as build_model
    from art_divqat.models.registry import list_models as list_models
    from art_divqat.models.registry import model_summary as model_summary
    from art_divqat.models.resnet import CifarResNet as CifarResNet
    from art_divqat.models.small import LeNet5 as LeNet5
    from art_divqat.models.small import SmallCNN as SmallCNN
    from art_divqat.models.small import TwoLayerPerceptron as TwoLayerPerceptron
    from art_divqat.models.weights import describe_weights as describe_weights
    from art_divqat.models.weights import load_public as load_public
    from art_divqat.models.weights import public_body as public_body
