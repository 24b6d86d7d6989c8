"""Spelling of options: a message that names those of the command line, for a caller of `audit_model` or `evaluate`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from art_divqat.plan.config import EvaluateConfig
from art_divqat.victims.external.settings import ExternalModel

# what is not called as on the command line
_FIELDS = {"budget": "budgets", "attack": "attacks", "defence": "defences", "victim": "victims"}
_OF_THE_MODEL = {"model": "architecture", "request-size": "batch_size"}
_ARGUMENTS = ("data", "config", "output", "outputs")
_OPTION = re.compile(
    r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z]+(?:-[a-z]+)*)"
    r"(?: (?P<value>\d+|cpu|free|paid|soft|hard|logits|probabilities|ray)(?![\w-]))?"
)


def in_python(message: str, *, audited: bool = True) -> str:
    """A message with each option of `art-divqat audit` as :func:`art_divqat.audit_model` takes it.

    :param audited: whether options of an audited model are meant; else those of `art-divqat evaluate`.

    >>> in_python("Add --trust-code, --no-control or --outputs logits; see --mean, --query-pool and --budget.")
    "Add trust_code=True, control=False or outputs='logits'; see external={'mean': …}, query_pool and budgets."
    >>> in_python("see --model"), in_python("see --model", audited=False)
    ("see external={'architecture': …}", 'see model')
    """
    return _OPTION.sub(partial(_argument, of_the_model=_OF_THE_MODEL if audited else {}), message)


def _argument(option: re.Match[str], of_the_model: Mapping[str, str]) -> str:
    name, value = option["name"], option["value"]
    field = _FIELDS.get(name, name.replace("-", "_"))
    said = "" if value is None else value if value.isdecimal() else repr(value)
    own = of_the_model.get(name, field)
    if name in _ARGUMENTS or (field in EvaluateConfig.model_fields and name not in of_the_model):
        if option["no"]:
            return f"{field}=False"
        if not said and field in EvaluateConfig.model_fields and EvaluateConfig.model_fields[field].annotation is bool:
            return f"{field}=True"
        return f"{field}={said}" if said else field
    if own in ExternalModel.model_fields:
        return f"external={{{own!r}: {said or '…'}}}"
    return option[0]
