"""Configuration as it is written into a run folder: every option said, and how to run it again."""

from __future__ import annotations

import shlex
from pathlib import Path

from art_divqat.plan.config import Options


def write_config(config: Options, path: Path = Path("config.yaml")) -> str:
    """The configuration as YAML, every option said.

    :param path: where it will lie, as seen from the working folder; the first line names it.
    """
    import yaml

    return f"# What was asked for, whole. {_again(config, path)}\n" + yaml.safe_dump(
        config.model_dump(mode="json", exclude=set() if config.seeds == "auto" else {"max_seeds", "max_minutes"}),
        sort_keys=False,
        allow_unicode=True,
    )


def _again(config: Options, path: Path) -> str:
    """How to run it again, from the folder that it was run in: paths in a configuration may be relative to that."""
    if config.external is None:
        return "Run it again with: art-divqat evaluate --config config.yaml"
    if config.external.source is None:
        return (
            "The model was an object of Python's, which no file holds. Run it again from Python with that object: "
            f"art_divqat.audit_model(model, config={str(path)!r})"
        )
    trust = " --trust-code" if config.trust_code else ""
    return f"Run it again, from the same folder, with: art-divqat audit --config {shlex.quote(str(path))}{trust}"
