"""Registries of names: attacks, recoveries, defences, victims, models, data sets and pools, built in or plugged in.

A registry maps a name to a frozen entry that says what the thing is, which parameters it takes and what it can do,
and where its code is (`"package.module:function"`, imported at first use). Third-party packages add entries through
entry points of the group `art_divqat.KIND`; `docs/add-your-own.md` tells how. Importing this module imports neither
torch nor ART.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, Generic, Protocol, TypeVar

from art_divqat._files import first_line
from art_divqat.errors import UserError, unknown_name

GROUPS = ("attacks", "recoveries", "defences", "victims", "models", "datasets", "pools")


class Entry(Protocol):
    """What every entry of every registry has."""

    @property
    def summary(self) -> str:
        """One line on it."""


E = TypeVar("E", bound=Entry)


def folded(name: str) -> str:
    """The form in which names are compared: lower case, `_` as `-`, no space around it.

    >>> folded(" Fashion_MNIST ")
    'fashion-mnist'
    """
    return name.strip().lower().replace("_", "-")


def load_target(target: Any) -> Any:
    """The object that `"package.module:name"` stands for; anything but text is the object itself.

    :raises UserError: if there is no such module, or no such name in it.

    >>> load_target("math:gcd")(12, 18)
    6
    """
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except UserError:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{target!r} cannot be loaded: {type(error).__name__}: {first_line(error)}.") from error


@dataclass(frozen=True)
class _Plugged:
    """An entry point, and the distribution that it comes from."""

    point: metadata.EntryPoint

    @property
    def origin(self) -> str:
        """`NAME VERSION` of the distribution."""
        distribution = self.point.dist
        return "an unknown distribution" if distribution is None else f"{distribution.name} {distribution.version}"


class Registry(Generic[E]):
    """Entries of one kind by name; case and `_` or `-` in a name do not matter.

    :param kind: what one of them is called in messages, such as `data set`.
    :param group: which of :data:`GROUPS` it is; entry points of `art_divqat.GROUP` join the built-in entries.
    :param entry_class: the class of the entries; a plug-in whose object is of another is refused.
    :param built_in: this package's own, by canonical name.
    :param also: further names or forms that messages list, such as `npz:PATH`; they are no entries.

    >>> @dataclass(frozen=True)
    ... class Fruit:
    ...     summary: str
    >>> fruits = Registry("fruit", "attacks", Fruit, {"blood-orange": Fruit("red inside")})
    >>> fruits["Blood_Orange"].summary
    'red inside'
    >>> fruits["bloodorange"]
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Unknown fruit 'bloodorange': did you mean blood-orange?
    """

    def __init__(
        self, kind: str, group: str, entry_class: type[E], built_in: Mapping[str, E], also: Iterable[str] = ()
    ) -> None:
        self.kind = kind
        self.group = group
        self._entry_class = entry_class
        self._built_in = dict(built_in)
        self._also = tuple(also)
        self._own = {folded(name): name for name in self._built_in}
        self._loaded: dict[str, E | UserError] = {}

    @cached_property
    def _plugged(self) -> dict[str, _Plugged]:
        """The entry points of the group by name; read at the first use of the registry, imported one by one later.

        :raises UserError: if two distributions, or one and this package, use one name.
        """
        found: dict[str, _Plugged] = {}
        owners = {folded(name): "art-divqat itself" for name in (*self._built_in, *self._also)}
        for point in sorted(metadata.entry_points(group=f"art_divqat.{self.group}"), key=lambda each: each.name):
            plugged = _Plugged(point)
            key = folded(point.name)
            if key in owners:
                raise UserError(
                    f"The {self.kind} {point.name!r} of {plugged.origin} has a name that {owners[key]} uses: "
                    "uninstall one of the two, or ask its author for another name."
                )
            owners[key] = plugged.origin
            found[point.name] = plugged
        return found

    @cached_property
    def _canonical(self) -> dict[str, str]:
        return {folded(name): name for name in (*self._built_in, *self._plugged)}

    def _known(self, name: str) -> str | None:
        """The canonical name or None; a name of this package's own is found without reading any entry point."""
        return self._own.get(folded(name)) or self._canonical.get(folded(name))

    def canonical(self, name: str) -> str:
        """The name as the table has it.

        :raises UserError: for a name that is in no table, saying which are near.
        """
        found = self._known(name)
        if found is None:
            raise unknown_name(self.kind, name, [*self, *self._also])
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._known(name) is not None

    def __iter__(self) -> Iterator[str]:
        """The canonical names: this package's in their order, then the plugged-in ones in alphabetical order."""
        return iter(self._canonical.values())

    def __len__(self) -> int:
        return len(self._canonical)

    def __getitem__(self, name: str) -> E:
        """The entry of a name; a plug-in is imported now.

        :raises UserError: for an unknown name, or a plug-in that cannot be imported or is no entry of this kind.
        """
        canonical = self.canonical(name)
        if canonical in self._built_in:
            return self._built_in[canonical]
        if canonical not in self._loaded:
            try:
                self._loaded[canonical] = self._load(canonical)
            except UserError as error:
                # a package that fails is imported once, not at every row of a report that names it
                self._loaded[canonical] = error
        entry = self._loaded[canonical]
        if isinstance(entry, UserError):
            raise entry
        return entry

    def find(self, name: str) -> E | None:
        """The entry of a name, or None where it is not known here or its plug-in cannot be loaded.

        For readers of what others ran: they may have had plug-ins that are not installed here.
        """
        try:
            return self[name] if self._known(name) else None
        except UserError:
            return None

    def _load(self, name: str) -> E:
        plugged = self._plugged[name]
        try:
            entry = plugged.point.load()
        except Exception as error:
            raise UserError(
                f"The {self.kind} {name!r} of {plugged.origin} cannot be loaded: "
                f"{type(error).__name__}: {first_line(error)}."
            ) from error
        if not isinstance(entry, self._entry_class):
            raise UserError(
                f"The {self.kind} {name!r} of {plugged.origin} is a {type(entry).__name__}: "
                f"expected a {self._entry_class.__module__}.{self._entry_class.__name__}."
            )
        return entry

    def origin(self, name: str) -> str | None:
        """`DISTRIBUTION VERSION` that a plugged-in name comes from; None for this package's own.

        :raises UserError: for an unknown name.
        """
        canonical = self.canonical(name)
        return None if canonical in self._built_in else self._plugged[canonical].origin

    def summaries(self) -> dict[str, str]:
        """Every name with one line on it; a plug-in that cannot be loaded says so in its line."""
        found = {}
        for name in self:
            try:
                found[name] = self[name].summary
            except UserError as error:
                found[name] = str(error)
        return found


def plugin_distributions() -> dict[str, str]:
    """Every installed distribution that adds an entry of any kind, with its version."""
    points = (point for group in GROUPS for point in metadata.entry_points(group=f"art_divqat.{group}"))
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}
