"""The audit from Python: `prepare` a configuration, `evaluate` it, or `audit_model` any image classifier."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import cache_folder, write_whole
from art_divqat._tensorflow import keep_triton_out
from art_divqat.audit.environment import resolve_device
from art_divqat.audit.folder import default_folder
from art_divqat.audit.progress import Watcher
from art_divqat.audit.run import run
from art_divqat.data import load_dataset
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.data.maite_sets import follows_maite, maite_arrays
from art_divqat.data.pictures import ImageForm
from art_divqat.data.sizes import smaller_side
from art_divqat.data.sources import has_pictures
from art_divqat.data.splits import checksum, stratified_subset
from art_divqat.errors import UserError
from art_divqat.outcome import AuditResult
from art_divqat.plan.config import Config, EvaluateConfig, ResolvedConfig, make_config, read_config
from art_divqat.plan.presets import resolve
from art_divqat.plan.spelling import in_python
from art_divqat.victims.external.own_form import form_in, own_form
from art_divqat.victims.external.settings import OF_OBJECTS, model_at

if TYPE_CHECKING:
    from art_divqat.victims.victim import Victim

_TEST_FRACTION = 0.2
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_NAMES = ", and give the names as class_names, in a mapping beside x_train, y_train, x_test and y_test"


def prepare(config: EvaluateConfig) -> ResolvedConfig:
    """Resolve a configuration once for a run: the device, every name and default, and the number of jobs.

    Picture files take the form that an audited model states; an endpoint is queried for its metadata.

    :raises UserError: for an unknown name, a missing device, or an unusable option.

    >>> prepare(make_config({"victims": ["robust"], "device": "cpu"})).query_pool
    'photos'
    """
    with _spelled_for_python():
        return resolved_for_run(config)


def resolved_for_run(config: EvaluateConfig) -> ResolvedConfig:
    """:func:`prepare` with messages that name the options of the command line."""
    device = resolve_device(config.device, None if config.executor == "local" else config.gpus_per_cell)
    config = config.model_copy(update={"device": device})
    resolved, asked = resolve(config), config
    if resolved.external is not None and has_pictures(resolved.dataset):
        own = own_form(resolved.external, size_known=resolved.image_size is not None)
        config = _with_images_of(config, own)
    side = smaller_side(resolved.dataset, config.image_form, config.data_root, config.download)
    if config is not asked or side is not None:
        # the networks depend on the size, and a model of one's own would be hashed once more
        resolved = resolve(config, side)
    if resolved.external is None or not (resolved.external.is_remote or resolved.external.source is None):
        return resolved
    if resolved.executor != "local":
        what = "An endpoint" if resolved.external.is_remote else "A model that is an object of this process"
        raise UserError(f"{what} is asked by one process, that no query is asked twice: leave out --executor ray.")
    # one process asks an endpoint, and holds a live object
    return resolved.model_copy(update={"jobs": 1})


def evaluate(
    config: ResolvedConfig | Path | str | None = None,
    output: Path | str | None = None,
    *,
    store: Path | None = None,
    retrain: bool = False,
    watcher: Watcher | None = None,
    live: Victim | None = None,
    **options: Any,
) -> AuditResult:
    """Run every cell of a configuration that the run folder does not yet hold, and write the results and reports.

    `evaluate(victims=["robust"], attacks=["knockoff"])` is what `art-divqat evaluate` does with the same options.

    :param config: a file of options, such as the `config.yaml` of a run folder, which `options` override; or a
        configuration from :func:`prepare`. Code of an audited model runs only if its `trust_code` is true; otherwise it
        is refused.
    :param output: the run folder: new, empty, or one of the same configuration, which is then resumed; by default
        `art-divqat-runs/…` in the working folder.
    :param store: where trained victims are cached; by default the user's cache.
    :param retrain: train the victims again even if the store has them.
    :param watcher: is told how the run goes.
    :param live: the object of this process that an `external` victim of the configuration stands for;
        :func:`audit_model` sets it.
    :param options: fields of :class:`art_divqat.plan.config.EvaluateConfig`: dataset, victims, attacks, budgets, ….
    :return: the results; `output` also holds them and every report.
    :raises UserError: for an unusable configuration, data or folder, or a model that is code without `trust_code`;
        nothing is then written.
    """
    with _spelled_for_python():
        if not isinstance(config, ResolvedConfig):
            from_file = {} if config is None else read_config(Path(config))
            config = resolved_for_run(make_config({**from_file, **options}))
        elif options:
            raise UserError(f"{next(iter(options))} was given beside a resolved configuration: give it to make_config.")
        handed = {"store": store, "retrain": retrain, "watcher": watcher, "live": live}
        return run_and_report(config, _folder(output, config), **handed)


def run_and_report(config: ResolvedConfig, output: Path, **handed: Any) -> AuditResult:
    """:func:`evaluate` with messages that name the options of the command line."""
    from art_divqat.report import write_report
    from art_divqat.report.findings import is_decided

    return AuditResult.of(run(config, output, **handed, publish=write_report, decided=is_decided), output)


@contextlib.contextmanager
def _spelled_for_python() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        error.args = (in_python(str(error), audited=False), *error.args[1:])
        raise


def audit_model(
    model: Any,
    data: Any = None,
    *,
    config: Path | str | None = None,
    output: Path | str | None = None,
    store: Path | None = None,
    outputs: str = "auto",
    watcher: Watcher | None = None,
    **options: Any,
) -> AuditResult:
    """Steal `model`, evaluate the copies, write the reports, and return the results as an object that prints itself.

    :param model: an ART classifier, a scikit-learn estimator, a torch module in eval mode, a model of MAITE's image
        classification, a path or an http(s) address. Live objects are queried in this process; they are not trained,
        copied or saved.
    :param data: a data set's name, `npz:PATH`, `folder:PATH` or `hf:PATH`; (images, labels); or a mapping with
        x_train, y_train, x_test and y_test, and class_names if the classes have names. Labels are integers. Images are
        uint8, or floats in [0, 1], in (N, C, H, W), (N, H, W, C) or (N, H, W). Arrays are written into the cache as an
        .npz, so that the run folder's configuration can repeat the audit. A MAITE data set, or a pair (train, test) of
        them, is read into arrays. None uses the data that `config` names.
    :param config: a file of options, such as the `config.yaml` of a run folder, which repeats that audit with `model`;
        `options` override it.
    :param output: the run folder; by default `art-divqat-runs/…` in the working folder.
    :param store: where examples crafted on the model are cached; by default the user's cache.
    :param outputs: what the model answers: `auto`, `logits` or `probabilities`.
    :param options: fields of :class:`art_divqat.plan.config.EvaluateConfig`: attacks, defences, budgets, seeds, …;
        `trust_code=True` allows code of the model's to run: a TorchScript or `torch.export` file, or the factory in
        `external={"factory": "package.module:function"}`. `external={"classes": …}` gives the number of classes, or
        their names in the model's order; `mean` and `std` the normalisation that a torch module or a file expects.
    :return: the results; `output` also holds them and every report.
    :raises UserError: for a model that does not fit the data or is code without `trust_code=True`, or any option that
        cannot be used.
    """
    kept = data if isinstance(data, str) else ""
    try:
        from_file = {} if config is None else read_config(Path(config))
        if not isinstance(model, (str, Path)) and isinstance(from_file.get("external"), dict):
            # it may be of the run of a file
            from_file["external"] = {key: from_file["external"].get(key) for key in OF_OBJECTS}
        options = {**from_file, **options}
        if data is not None:
            options["dataset"] = kept = kept or _kept(data)
        return _audit(model, options, outputs, output, store, watcher)
    except UserError as error:
        message = str(error) if isinstance(data, str) else _without_path(str(error), kept)
        error.args = (in_python(message),)
        raise error from None


def _audit(
    model: Any,
    options: dict[str, Any],
    outputs: str,
    output: Path | str | None,
    store: Path | None,
    watcher: Watcher | None,
) -> AuditResult:
    if "dataset" not in options:
        raise UserError("Say what images the model takes: give data, or config, a file that names them.")
    external = {"outputs": outputs, **(options.get("external") or {})}
    if isinstance(model, (str, Path)):
        resolved = prepare(make_config({**options, "victims": [model_at(str(model))], "external": external}))
        return evaluate(resolved, _folder(output, resolved), store=store, watcher=watcher)
    asked = make_config({**options, "victims": ["standard"], "external": {**external, "source": None}})
    resolved, live = _live(model, asked)
    return evaluate(resolved, _folder(output, resolved), store=store, watcher=watcher, live=live)


def _without_path(message: str, kept: str) -> str:
    """A message without the file that keeps the caller's arrays, of which the caller knows nothing.

    >>> _without_path("No control on 'npz:/c/a.npz'. x_train of /c/a.npz: images", "npz:/c/a.npz")
    'No control on the arrays given. x_train of the arrays given: images'
    >>> _without_path("/c/a.npz: y_train has one class", "npz:/c/a.npz")
    'The arrays given: y_train has one class'
    """
    if not kept:
        return message
    for name in (repr(kept), kept, kept.removeprefix("npz:")):
        message = message.replace(name, "the arrays given")
    return f"{message[:1].upper()}{message[1:]}" if message.startswith("the ") else message


def _live(model: Any, asked: EvaluateConfig) -> tuple[ResolvedConfig, Victim]:
    """The configuration and the victim of an object of this process, probed on the data."""
    keep_triton_out()
    from art_divqat.victims.external.adapter import probe
    from art_divqat.victims.external.live import adapt, live_name

    if has_pictures(asked.dataset):
        asked = _with_images_of(asked, form_in([None, *(getattr(model, "input_shape", None) or ())]))
    split = load_dataset(
        asked.dataset,
        data_root=asked.data_root,
        download=asked.download,
        form=asked.image_form,
        limit=asked.limit,
        seed=asked.split_seed,
    )
    assert asked.external is not None
    live = probe(
        adapt(model, split.input_shape, split.nb_classes, split.class_names, asked.external, split.class_numbers),
        split.x_test,
        split.y_test,
        asked.external.outputs,
        numbers=split.class_numbers,
    )
    name = live_name(live.classifier, type(model).__name__, split.x_test)
    return prepare(asked.model_copy(update={"victims": (name,)})), live


def _with_images_of(config: Config, own: ImageForm) -> Config:
    """A configuration whose images are as a model takes them, where it does not say otherwise."""
    size, channels = config.image_size or own.size, config.image_channels or own.channels
    return config.model_copy(update={"image_size": size, "image_channels": channels})


def _folder(output: Path | str | None, config: ResolvedConfig) -> Path:
    return default_folder(config) if output is None else Path(output)


def _kept(data: Any) -> str:
    """The arrays as `npz:PATH` in the cache, by their content."""
    arrays = _four_arrays(data)
    path = cache_folder() / "arrays" / f"{checksum(*arrays.values())}.npz"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    if not path.exists():
        write_whole(path, write)
    return f"npz:{path}"


def _four_arrays(data: Any) -> dict[str, NDArray[Any]]:
    if follows_maite(data):
        x, y, names = maite_arrays(data)
        return _four_arrays((x, y)) | ({"class_names": np.asarray(names)} if names else {})
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(map(follows_maite, data)):
        (x, y, names), (x_test, y_test, _) = map(maite_arrays, data)
        both = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
        return _four_arrays(both | ({"class_names": names} if names else {}))
    if isinstance(data, Mapping):
        missing = [key for key in _ARRAYS if key not in data]
        if missing:
            raise UserError(f"The data lacks {', '.join(missing)}: expected {', '.join(_ARRAYS)}.")
        given = {key: np.asarray(data[key]) for key in _ARRAYS}
        for part in ("train", "test"):
            x = check_images(as_nchw(given[f"x_{part}"], "data"), "data")
            y = check_labels(given[f"y_{part}"], len(x), "data: labels", remedy=_NAMES)
            given |= {f"x_{part}": x, f"y_{part}": y}
        if data.get("class_names") is not None:
            given["class_names"] = np.asarray([str(name) for name in data["class_names"]])
        return given
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise UserError("The data is neither a name, nor (images, labels), nor a mapping with x_train, y_train, ….")
    x = check_images(as_nchw(np.asarray(data[0]), "data"), "data")
    y = check_labels(np.asarray(data[1]), len(x), "data: labels", remedy=_NAMES)
    test = stratified_subset(y, max(1, round(_TEST_FRACTION * len(x))), seed=0)
    train = np.setdiff1d(np.arange(len(x)), test)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
