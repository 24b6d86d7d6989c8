import numpy as np
from art.defences.postprocessor.postprocessor import Postprocessor


class Softmax(Postprocessor):
    def __init__(self):
        super().__init__(is_fitted=True, apply_fit=False, apply_predict=True)

    def __call__(self, preds):
        e = np.exp(preds - preds.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)
