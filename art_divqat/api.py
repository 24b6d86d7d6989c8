"""`audit_model(classifier, data)`: the audit from Python, of anything that classifies images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import default_store, write_whole
from art_divqat.audit.environment import resolve_device
from art_divqat.audit.progress import Watcher
from art_divqat.audit.run import evaluate
from art_divqat.data import load_dataset
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.data.splits import checksum, stratified_subset
from art_divqat.errors import UserError
from art_divqat.plan.config import EvaluateConfig, make_config
from art_divqat.plan.presets import resolve
from art_divqat.results.schema import Results

_TEST_FRACTION = 0.2
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def audit_model(
    model: Any,
    data: Any,
    *,
    output: Path | str | None = None,
    store: Path | None = None,
    outputs: str = "auto",
    watcher: Watcher | None = None,
    **options: Any,
) -> Results:
    """Steal `model`, measure the copies, write the reports, and return the same results as the command line's.

    :param model: an ART classifier, a scikit-learn estimator, a torch module in eval mode, a path or an http(s)
        address. Live objects are asked in this process; nothing of theirs is trained, copied or saved.
    :param data: a data set's name, `npz:PATH` or `folder:PATH`; (images, labels); or a mapping with x_train, y_train,
        x_test and y_test. Images are uint8, or floats in [0, 1], in (N, C, H, W), (N, H, W, C) or (N, H, W). Arrays are
        written into the cache as an .npz, so that the run folder's configuration can repeat the audit.
    :param output: the run folder; `art-divqat-runs/…` in the working folder if not given.
    :param store: where what is crafted on the model is kept; the user's cache if not given.
    :param outputs: what the model answers: `auto`, `logits` or `probabilities`.
    :param options: fields of :class:`art_divqat.plan.config.EvaluateConfig`: attacks, defences, budgets, seeds, …
    :return: the results; `output` also holds them and every report.
    :raises UserError: for a model that does not fit the data, or any option that cannot be used.
    """
    dataset = data if isinstance(data, str) else _kept(data)
    if isinstance(model, (str, Path)):
        named = str(model)
        victim = named if named.lower().startswith(("http://", "https://")) else f"file:{named.removeprefix('file:')}"
        external = {"outputs": outputs, **(options.pop("external", None) or {})}
        config = make_config({**options, "dataset": dataset, "victims": [victim], "external": external})
        return evaluate(config, _folder(output, config), store=store, watcher=watcher)
    from art_divqat.victims.external.live import adapt, holding, live_name, probed

    config = make_config({**options, "dataset": dataset, "external": {"outputs": outputs}, "jobs": 1})
    split = load_dataset(
        dataset, data_root=config.data_root, download=config.download, limit=config.limit, seed=config.split_seed
    )
    classifier = adapt(model, split.input_shape, split.nb_classes)
    probed(classifier, split.x_test, split.y_test, outputs)
    name = live_name(classifier, type(model).__name__, split.x_test)
    config = config.model_copy(update={"victims": (name,)})
    with holding(name, classifier):
        return evaluate(config, _folder(output, config), store=store, watcher=watcher)


def _folder(output: Path | str | None, config: EvaluateConfig) -> Path:
    from art_divqat.audit.folder import default_folder

    if output is not None:
        return Path(output)
    return default_folder(resolve(config.model_copy(update={"device": resolve_device(config.device)})))


def _kept(data: Any) -> str:
    """The arrays as `npz:PATH` in the cache, by their content."""
    arrays = _four_arrays(data)
    folder = default_store().parent / "arrays"
    path = folder / f"{checksum(*(arrays[key] for key in _ARRAYS))}.npz"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    if not path.exists():
        write_whole(path, write)
    return f"npz:{path}"


def _four_arrays(data: Any) -> dict[str, NDArray[Any]]:
    if isinstance(data, Mapping):
        missing = [key for key in _ARRAYS if key not in data]
        if missing:
            raise UserError(f"The data lacks {', '.join(missing)}: expected {', '.join(_ARRAYS)}.")
        given = {key: np.asarray(data[key]) for key in _ARRAYS}
        for part in ("train", "test"):
            x = check_images(as_nchw(given[f"x_{part}"], "data"), "data")
            given |= {f"x_{part}": x, f"y_{part}": check_labels(given[f"y_{part}"], len(x), "data: labels")}
        return given
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise UserError("The data is neither a name, nor (images, labels), nor a mapping with x_train, y_train, ….")
    x = check_images(as_nchw(np.asarray(data[0]), "data"), "data")
    y = check_labels(np.asarray(data[1]), len(x), "data: labels")
    test = stratified_subset(y, max(1, round(_TEST_FRACTION * len(x))), seed=0)
    train = np.setdiff1d(np.arange(len(x)), test)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
