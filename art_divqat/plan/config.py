"""Configuration of an evaluation: one model for the command line, the file and Python."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from art_divqat.attacks.extraction.registry import AttackSpec, read_attack
from art_divqat.data.pictures import ImageForm
from art_divqat.defences.registry import DefenceSpec, read_defence
from art_divqat.errors import UserError, suggest
from art_divqat.estimators._names import LATER_OPTIONS
from art_divqat.victims.external.settings import ExternalModel
from art_divqat.victims.specs import VictimSpec, read_victim

S = TypeVar("S")
_LARGEST_SIDE = 4096
# options that came later than the first journals, which are written down only where they say something
_LATER = ("attacker_images", "attacker_labels", "control", "weights", "training", "thief_weights", "thief_training")
_ENGINE = ("executor", "address", "gpus_per_cell")
_ANSWERS = r"^(soft|hard|top-[1-9][0-9]{0,4})$"


def _known_answers(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(_ANSWERS, value):
        raise ValueError(f"expected soft, hard, or top-K such as top-3, got {value!r}")
    return value


def _number_or_auto(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or not 1 <= value <= 1000:
        raise ValueError(f"expected a whole number from 1 to 1000, or auto, got {value!r}")
    return int(value)


Seeds = Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)]
# the pattern is for the JSON schema; its own message would be a regular expression
Answers = Annotated[str, BeforeValidator(_known_answers), Field(pattern=_ANSWERS)]


def _height_and_width(value: Any) -> Any:
    """`N`, `HxW` and pairs, as a pair."""
    given = value
    if isinstance(value, str):
        texts = value.lower().replace("×", "x").split("x")
        value = [int(text) for text in texts] if all(text.strip().isdecimal() for text in texts) else None
    sides: Any = [value, value] if type(value) is int else value
    if not isinstance(sides, list | tuple) or not 1 <= len(sides) <= 2 or any(type(side) is not int for side in sides):
        raise ValueError(f"expected N or HxW in pixels, such as 224, got {given!r}")
    if not all(1 <= side <= _LARGEST_SIDE for side in sides):
        raise ValueError(f"expected sides from 1 to {_LARGEST_SIDE:,} pixels, got {given!r}")
    return (sides[0], sides[-1])


ImageSize = Annotated[tuple[int, int], BeforeValidator(_height_and_width)]


class Recipe(BaseModel):
    """A training recipe; see :class:`art_divqat.estimators.TrainingRecipe` for the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    augmentation: Literal["none", "flip", "crop-flip"] = "none"
    warm_up: float = Field(0.0, ge=0, lt=1, description="fraction of the steps over which the learning rate rises")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    cuda_graphs: bool = Field(False, description="on a GPU, record the passes and replay them")

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _said(self, handler(self), LATER_OPTIONS)


class Evasion(BaseModel):
    """How robust accuracy is measured: white-box PGD with `steps` steps on `images` test images.

    `epsilons` are the radii of the curves, besides the single figure at `epsilon`; empty for no curves. None stands for
    the preset's, and in the configuration of a run that was made before there were curves, for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(200, ge=0, description="0 measures no robustness")
    steps: int = Field(20, ge=1)
    autoattack: bool = False
    epsilons: tuple[float, ...] | None = Field(None, description="radii of the curves; none for no curves")

    @field_validator("epsilons")
    @classmethod
    def _ascending_pixel_units(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for radius in value or ():
            _check_pixel_units(radius)
        if any(later <= earlier for earlier, later in itertools.pairwise(value or ())):
            raise ValueError(f"expected ascending radii, each once, got {_listed(value or ())}")
        return value


def _reader(kind: type[S], read: Callable[[str], S]) -> PlainValidator:
    """A field of values of one kind; text is what a journal holds, which may name what is not known here."""

    def value(given: Any) -> S:
        if isinstance(given, kind):
            return given
        if not isinstance(given, str):
            raise ValueError(f"expected a text, got {given!r}")
        return read(given)

    return PlainValidator(value)


_AS_TEXT = PlainSerializer(str, return_type=str)


class Options(BaseModel):
    """What an evaluation is told; victims, defences and attacks are text when asked for, and values when resolved."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    preset: Literal["quick", "standard", "paper"] = "quick"
    dataset: str = "digits"
    image_size: ImageSize | None = Field(None, description="pixels that images are resized to: N, or height and width")
    image_channels: Literal[1, 3] | None = Field(None, description="1 for grey, 3 for RGB; else their own")
    image_fit: Literal["crop", "squash"] = "crop"
    limit: int | None = Field(None, ge=1)
    victims: tuple[Any, ...]
    baseline: bool = True
    control: bool | None = Field(
        None, description="of a model of one's own: whether the same is tried on an undefended one trained here"
    )
    defences: tuple[Any, ...]
    attacks: tuple[Any, ...]
    answers: tuple[Answers, ...] = ("soft", "hard")
    budgets: tuple[int, ...] | None = None
    query_pool: str | None = None
    seeds: Annotated[int | Literal["auto"] | None, BeforeValidator(_number_or_auto)] = None
    max_seeds: int = Field(20, ge=3, le=1000, description="of seeds: auto, the most that are run")
    max_minutes: float = Field(30, gt=0, description="of seeds: auto, after how long no more seeds are added")
    attacker_images: int = Field(0, ge=0, description="images of the victim's own kind that the attacker has")
    attacker_labels: bool = Field(True, description="whether the attacker knows their true labels")
    model: str | None = None
    thief_model: str | None = None
    weights: str | None = Field(
        None, description="public weights that victims begin from: imagenet, package:NAME or a state dict's path"
    )
    training: Literal["probe", "fine-tune"] | None = Field(None, description="likewise of victims with public weights")
    thief_weights: str | None = Field(None, description="public weights that thieves begin from")
    thief_training: Literal["probe", "fine-tune"] | None = Field(
        None, description="of thieves with public weights: a linear head on what they see, or that and then all of it"
    )
    epsilon: float | None = None
    victim_recipe: Recipe | None = None
    thief_recipe: Recipe | None = None
    evasion: Evasion | None = None
    fail_on: tuple[str, ...] = ()
    repeat_queries: Literal["paid", "free"] = "paid"
    split_seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1, le=256, description="torch threads a cell; part of the numbers, to the last digit")
    device: str = "auto"
    jobs: int | None = Field(None, ge=1, le=256)
    executor: Literal["local", "ray"] = Field("local", description="where cells run: here, or on an engine of machines")
    address: str | None = Field(None, min_length=1, description="of the engine: HOST:PORT, or auto for this machine's")
    gpus_per_cell: float = Field(0.0, ge=0, le=1, description="the share of a GPU that the engine gives a cell")
    victim_store: str | None = Field(None, min_length=1, description="URL of a folder of victims, for all machines")
    data_root: Path | None = None
    download: bool = False
    external: ExternalModel | None = None
    # neither is ever written down: trust is given anew by whoever runs, and answers lie in the run folder
    trust_code: bool = Field(False, exclude=True)
    answers_file: Path | None = Field(None, exclude=True)

    @field_validator("victims", "defences", "attacks", "answers")
    @classmethod
    def _some_and_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("expected at least one")
        texts = [str(each) for each in value]
        if len(set(texts)) < len(texts):
            raise ValueError(f"each may be given once, got {', '.join(texts)}")
        return value

    @field_validator("victims", "defences", "attacks", "answers", "budgets", "fail_on", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) or type(value) is int else value

    @field_validator("budgets")
    @classmethod
    def _ascending(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        if not value or min(value) < 1:
            raise ValueError(f"expected positive numbers of queries, got {_listed(value)}")
        if any(later <= earlier for earlier, later in itertools.pairwise(value)):
            raise ValueError(f"expected ascending budgets, each once, got {_listed(value)}")
        return value

    @field_validator("epsilon")
    @classmethod
    def _pixel_units(cls, value: float | None) -> float | None:
        if value is not None:
            _check_pixel_units(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"there is no option {key!r}: {suggest(str(key), cls.model_fields)}")
        return data

    @model_validator(mode="after")
    def _engine_where_one_is_used(self) -> Options:
        for name in _ENGINE[1:]:
            if self.executor == "local" and getattr(self, name) != type(self).model_fields[name].default:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is of an engine of several machines: give --executor ray too")
        return self

    @property
    def image_form(self) -> ImageForm:
        """What images of the data set become."""
        return ImageForm(self.image_size, self.image_channels, self.image_fit)

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _said(self, handler(self), (*_LATER, *_ENGINE, "victim_store"))

    def for_results(self) -> dict[str, Any]:
        """What the results record: all that the numbers depend on, without places, parallelism and the gate."""
        # with a number of seeds there is no other option on them, as in the runs before there were any
        unused = {"max_minutes"} if self.seeds == "auto" else {"max_minutes", "max_seeds"}
        places = {"jobs", *_ENGINE, "victim_store", "data_root", "download", "fail_on", "external"}
        values = self.model_dump(mode="json", exclude=places | unused)
        return values if self.external is None else {**values, "external": self.external.for_results()}


class EvaluateConfig(Options):
    """One evaluation, as it was asked for.

    Fields that are None are filled by :func:`art_divqat.plan.presets.resolve`.
    """

    victims: tuple[str, ...] = ("standard",)
    defences: tuple[str, ...] = ("none",)
    attacks: tuple[str, ...] = ("knockoff", "scout")


class ResolvedConfig(Options):
    """A configuration in which every option is said, and every victim, defence and attack is the value it stands for.

    Written down, these are text again.
    """

    victims: tuple[Annotated[VictimSpec, _reader(VictimSpec, read_victim), _AS_TEXT], ...]
    defences: tuple[Annotated[DefenceSpec, _reader(DefenceSpec, read_defence), _AS_TEXT], ...]
    attacks: tuple[Annotated[AttackSpec, _reader(AttackSpec, read_attack), _AS_TEXT], ...]
    budgets: tuple[int, ...]
    query_pool: str
    seeds: Seeds
    model: str
    thief_model: str
    epsilon: float
    victim_recipe: Recipe
    thief_recipe: Recipe
    evasion: Evasion


Config = TypeVar("Config", bound=Options)


def _said(options: BaseModel, values: dict[str, Any], later: tuple[str, ...]) -> dict[str, Any]:
    """The values without those of later options that have their defaults."""
    unsaid = [name for name in later if values.get(name) == type(options).model_fields[name].default]
    return {name: value for name, value in values.items() if name not in unsaid}


def _check_pixel_units(radius: float) -> None:
    if not 0 <= radius <= 1:
        raise ValueError(
            f"expected a number in [0, 1], in units of [0, 1] pixels (8 of 255 is {8 / 255:.4f}), got {radius:g}"
        )


def _listed(values: tuple[int, ...] | tuple[float, ...]) -> str:
    return ",".join(map(str, values))


def make_config(values: Mapping[str, Any]) -> EvaluateConfig:
    """Validate plain values into a configuration.

    :raises UserError: one line that names the first bad option, what was expected and what was given.

    >>> make_config({"budgets": [0]})
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Option budgets: expected positive numbers of queries, got 0.
    """
    return validated(EvaluateConfig, values)


def validated(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Validate plain values into a configuration of a kind.

    :raises UserError: one line that names the first bad option, what was expected and what was given.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]}, got {first['input']!r}"
        text = f"Option {place}: {message}." if place else f"{message}."
        # some end with a mark of their own
        raise UserError(text.replace("..", ".").replace("?.", "?")) from None


def read_config(path: Path) -> dict[str, Any]:
    """The plain values of a YAML, TOML or JSON file, not yet validated.

    :raises UserError: if the file is missing, is not one of these, or does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The configuration {path} cannot be read: {error}.") from None
    try:
        if path.suffix == ".toml":
            if sys.version_info >= (3, 11):
                import tomllib
            else:
                import tomli as tomllib
            values: Any = tomllib.loads(text)
        elif path.suffix == ".json":
            values = json.loads(text)
        else:
            import yaml

            values = yaml.safe_load(text)
    except Exception as error:
        line = " ".join(str(error).split())
        raise UserError(f"The configuration {path} is not valid {path.suffix.lstrip('.') or 'yaml'}: {line}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"The configuration {path} holds no options: expected lines such as 'dataset: digits'.")
    for option in ("trust_code", "answers_file"):
        if option in values:
            raise UserError(f"{path} says {option}: a file grants no trust and says no places; use the command line.")
    return values
