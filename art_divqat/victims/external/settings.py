"""Settings of an external model: where it is, how to read and query it, and its one name in a run.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from art_divqat.errors import UserError
from art_divqat.specs import Spec, parse_spec

EXTERNAL = "external"
FILE_PREFIX = "file:"
# what may be said of a model that is an object of Python's; the rest is of files and endpoints
OF_OBJECTS = ("outputs", "classes", "mean", "std")
_SECRET = re.compile(r"key|token|secret|sig|auth|passw|credential", re.IGNORECASE)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ExternalModel(BaseModel):
    """Where an external victim is, how it is built, and how an endpoint may be asked.

    :param source: a path, an `http(s)://` address, or None for a live Python object.
    :param architecture: registered model that a state dict belongs to.
    :param factory: `package.module:function` that builds the network of a state dict; it is code.
    :param outputs: whether the model answers logits or probabilities; `auto` decides on a probe.
    :param mean: subtracted from images in [0, 1], one value or one a channel, before the model sees them.
    :param std: they are divided by it afterwards.
    :param classes: how many classes the model has, or their names in its order, where it answers with labels or names
        alone and has more than the data.
    :param protocol: what an endpoint speaks: Open Inference Protocol `v2`, `json`, or `auto` by its address.
    :param auth_env: environment variable that holds the credential of an endpoint.
    :param auth_header: header that the credential is sent in.
    :param batch_size: images a request.
    :param rate: at most so many images a second; None for no limit.
    :param timeout: seconds that one request may take.
    :param retries: how often a request is repeated after a fault.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = None
    architecture: str | None = None
    factory: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    outputs: Literal["auto", "logits", "probabilities"] = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: Annotated[int, Field(ge=2)] | tuple[str, ...] | None = None
    protocol: Literal["auto", "v2", "json"] = "auto"
    auth_env: str | None = None
    auth_header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]+$")
    batch_size: int = Field(64, ge=1, le=65_536)
    rate: float | None = Field(None, gt=0)
    timeout: float = Field(30.0, gt=0)
    retries: int = Field(5, ge=0, le=100)

    @field_validator("auth_env")
    @classmethod
    def _a_name_and_no_secret(cls, value: str | None) -> str | None:
        if value is not None and not _ENVIRONMENT_NAME.fullmatch(value):
            raise ValueError("expected the name of an environment variable; the credential itself is never given here")
        return value

    @field_validator("mean", "std")
    @classmethod
    def _finite(cls, value: tuple[float, ...] | None, info: Any) -> tuple[float, ...] | None:
        if value is not None and (len(value) not in (1, 3) or (info.field_name == "std" and min(value) <= 0)):
            raise ValueError("expected one number, or one for each of three channels; above zero for std")
        return value

    @field_validator("classes")
    @classmethod
    def _names_of_classes(cls, value: int | tuple[str, ...] | None) -> int | tuple[str, ...] | None:
        if isinstance(value, tuple) and (len(set(value)) != len(value) or len(value) < 2 or not all(value)):
            raise ValueError("expected the number of classes, or at least two names that are all different")
        return value

    @property
    def is_remote(self) -> bool:
        """Whether it is an endpoint."""
        return is_url(self.source)

    def for_results(self) -> dict[str, Any]:
        """What the numbers depend on; neither places nor anything about credentials."""
        asked = {"architecture", "factory", "outputs", "mean", "std", "protocol"}
        # came later than the others, and runs without it keep their name
        return self.model_dump(mode="json", include=asked if self.classes is None else asked | {"classes"})


def is_url(text: str | None) -> bool:
    """Whether a model is named by an address.

    >>> is_url("https://models.example/v2/models/cats"), is_url("model.onnx")
    (True, False)
    """
    return text is not None and text.lower().startswith(("http://", "https://"))


def model_at(source: str) -> str:
    """The victim that a path or an address names, as a configuration has it.

    >>> model_at("model.onnx"), model_at("file:model.onnx"), model_at("https://models.example/cats")
    ('file:model.onnx', 'file:model.onnx', 'https://models.example/cats')
    """
    return source if is_url(source) else f"{FILE_PREFIX}{source.removeprefix(FILE_PREFIX)}"


def is_external(victim: str) -> bool:
    """Whether a victim, as it is written on the command line or in results, is not one of this package's."""
    return victim.startswith((FILE_PREFIX, f"{EXTERNAL}:")) or is_url(victim)


def external_name(source: str, settings: ExternalModel) -> str:
    """The canonical victim of a path or an address: `external:name=…,sha256=…`, the hash of its content.

    An endpoint's content cannot be hashed; its address is.

    :raises UserError: if there is nothing at the path, or the address carries a credential.
    """
    if is_url(source):
        address = check_address(source)
        label, digest = f"{urlsplit(address).hostname}", hashlib.sha256(address.encode())
    else:
        path = local_path(source)
        label, digest = path.name, hashlib.sha256()
        for file in _files(path):
            try:
                digest.update(f"{file.relative_to(path) if path.is_dir() else ''}\0".encode())
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
            except OSError as error:
                raise UserError(f"The model {source} cannot be read: {error.strerror or error}.") from None
    return external_spec(label, digest.hexdigest())


def external_spec(label: str, sha256: str) -> str:
    """The canonical name of an external victim.

    >>> external_spec("my model.pt", "ab" * 32)
    'external:name=my-model.pt,sha256=xabababababababab'
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", label).strip("-")[:60] or "model"
    # the letter keeps a hash of digits alone from being read as a number
    return str(Spec(EXTERNAL, (("name", name), ("sha256", f"x{sha256[:16]}"))))


def same_external(victim: str) -> Spec:
    """Read a victim that is already `external:name=…,sha256=…`.

    :raises UserError: if it is not.
    """
    spec = parse_spec(victim)
    if set(spec.as_dict) != {"name", "sha256"}:
        raise UserError(f"{victim!r} is no model: give file:PATH or an http(s) address.")
    return spec


def local_path(source: str) -> Path:
    """The path of a model given as PATH or `file:PATH`.

    :raises UserError: if there is nothing.
    """
    path = Path(source.removeprefix(FILE_PREFIX)).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError):
        there = False
    if not there:
        raise UserError(f"There is no model at {str(path)!r}: expected a file, a folder or an http(s) address.")
    return path


def check_address(url: str) -> str:
    """The address, if it carries no credential: those go into an environment variable, which `--auth-env` names.

    :raises UserError: without repeating the credential.

    >>> check_address("http://user:hunter2@models.example/")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The address of the model carries a credential: take it out, put it into an \
environment variable and name that with --auth-env.
    """
    try:
        parts = urlsplit(url)
        host, secret = parts.hostname, parts.username or parts.password
        port = parts.port
    except ValueError as error:
        raise UserError(f"The address of the model is not valid: {error}.") from None
    del port
    if secret or any(_SECRET.search(key) for key, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise UserError(
            "The address of the model carries a credential: take it out, put it into an environment variable and name "
            "that with --auth-env."
        )
    if not host:
        raise UserError(f"The address {url!r} names no host.")
    return url


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    weights = path.with_suffix(".bin")
    # an OpenVINO model is two files
    return [path, weights] if path.suffix.lower() == ".xml" and weights.is_file() else [path]


def resolve_external(
    victims: tuple[str, ...], external: ExternalModel | None, architecture: str | None
) -> tuple[tuple[str, ...], ExternalModel | None]:
    """Victims with the external one by its canonical name, and where it is.

    :param architecture: the registered model that was asked for, which a state dict may belong to.
    :raises UserError: for two external victims, none where one is described, or a model that changed since.
    """
    externals = [victim for victim in victims if is_external(victim)]
    if not externals:
        if external is not None:
            raise UserError("A model is described under 'external' and none of the victims is it.")
        return victims, None
    if len(externals) > 1:
        raise UserError(f"One model of your own can be audited at a time. Got {' and '.join(externals)}.")
    (given,) = externals
    external = external or ExternalModel()
    if given.startswith(f"{EXTERNAL}:"):
        name = str(same_external(given))
        if external.source is not None and external_name(external.source, external) != name:
            raise UserError(f"The model at {external.source} is not the one that {name} was: it has changed since.")
    else:
        source = given.removeprefix(FILE_PREFIX)
        name = external_name(source, external)
        own = external.architecture or (None if external.factory else architecture)
        external = external.model_copy(update={"source": source, "architecture": own})
    return tuple(name if victim == given else victim for victim in victims), external
