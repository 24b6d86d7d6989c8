"""Specifications: parse and print `name:parameter=value,…`, the form of victims, attacks and defences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from art_divqat.errors import UserError

Value = int | float | bool | str
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Spec:
    """A name and its parameters, in the order of their names; `str` gives the one canonical form.

    :param text: what `str` gives instead, for one that was read as somebody else wrote it.

    >>> str(parse_spec("robust:epsilon=0.20"))
    'robust:epsilon=0.2'
    """

    name: str
    parameters: tuple[tuple[str, Value], ...] = ()
    text: str = ""

    @property
    def as_dict(self) -> dict[str, Value]:
        """The parameters as a dictionary."""
        return dict(self.parameters)

    def with_parameters(self, parameters: Mapping[str, Value]) -> Spec:
        """The same name with these parameters added or replaced."""
        return Spec(self.name, tuple(sorted({**self.as_dict, **parameters}.items())))

    def __str__(self) -> str:
        if self.text or not self.parameters:
            return self.text or self.name
        return f"{self.name}:{','.join(f'{key}={_write(value)}' for key, value in self.parameters)}"


def parse_spec(text: str) -> Spec:
    """Read one specification; values become int, float, bool or text, whichever they look like.

    :raises UserError: for an empty name, or a parameter without a value or given twice.

    >>> parse_spec("heuristic:beta=0.5,preserve_label=true").as_dict
    {'beta': 0.5, 'preserve_label': True}
    """
    name, _, rest = text.strip().partition(":")
    if not _NAME.fullmatch(name):
        raise UserError(f"{text!r} does not start with a name: expected NAME or NAME:parameter=value,…")
    parameters: dict[str, Value] = {}
    for item in rest.split(",") if rest else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not key or not equals or not value:
            raise UserError(f"{item!r} in {text!r} is not parameter=value.")
        if key in parameters:
            raise UserError(f"Parameter {key!r} is given twice in {text!r}.")
        parameters[key] = _read(value)
    return Spec(name, tuple(sorted(parameters.items())))


def read_spec(text: str) -> Spec:
    """A specification as results hold it, which may be anything; `str` gives the text back.

    What cannot be read is all name.

    >>> [(spec.name, str(spec)) for spec in map(read_spec, ["robust:epsilon=0.20", "??"])]
    [('robust', 'robust:epsilon=0.20'), ('??', '??')]
    """
    try:
        spec = parse_spec(text)
    except UserError:
        return Spec(text)
    return spec if str(spec) == text else replace(spec, text=text)


def _read(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _write(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)
