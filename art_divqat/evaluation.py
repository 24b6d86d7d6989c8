"""ExtractionEvaluation: the audit as an ART evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from art.evaluations.evaluation import Evaluation

from art_divqat.api import audit_model
from art_divqat.outcome import AuditResult


class ExtractionEvaluation(Evaluation):  # type: ignore[misc]
    """How easily a classifier is stolen; see :func:`art_divqat.api.audit_model` for `options`.

    :param data: images of the classifier's task.
    :param output: the run folder.
    :param options: attacks, defences, budgets, seeds, …

    >>> ExtractionEvaluation("digits", budgets=[100]).options
    {'budgets': [100]}
    """

    def __init__(self, data: Any, *, output: Path | str | None = None, **options: Any) -> None:
        self.data = data
        self.output = output
        self.options = options

    def evaluate(self, classifier: Any, **kwargs: Any) -> AuditResult:
        """Steal `classifier` and measure the copies.

        :param kwargs: options of this call alone.
        :raises UserError: for a classifier that does not fit the data.
        """
        return audit_model(classifier, self.data, **{"output": self.output, **self.options, **kwargs})
