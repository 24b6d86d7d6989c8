"""Names that an option accepts: listed by `art-divqat list` and completed by the shell."""

from __future__ import annotations

from art_divqat.errors import unknown_name

KINDS = ("datasets", "pools", "models", "victims", "attacks", "recoveries", "defences", "presets")


def names_of(kind: str) -> dict[str, str]:
    """The names of a kind, and what each is in one line.

    :raises UserError: for an unknown kind.

    >>> names_of("presets").keys() >= {"quick", "paper"}
    True
    """
    if kind == "datasets":
        from art_divqat.data.sources import list_datasets

        return list_datasets() | {
            "npz:PATH": "an .npz archive with x_train, y_train, x_test and y_test",
            "folder:PATH": "a folder of pictures, one sub-folder a class, or train and test over them",
            "hf:PATH": "a folder that Hugging Face datasets saved, or with --download hf:NAME of its Hub",
        }
    if kind == "pools":
        from art_divqat.data.pools import list_pools

        return list_pools() | {"DATASET": "the training images of any data set, made to fit"}
    if kind == "models":
        from art_divqat.models.registry import MODEL_FORMS, MODELS

        return dict(sorted(MODELS.summaries().items())) | MODEL_FORMS
    if kind == "victims":
        from art_divqat.victims.registry import list_victims

        return list_victims()
    if kind == "attacks":
        from art_divqat.attacks.extraction.registry import list_attacks

        return list_attacks()
    if kind == "recoveries":
        from art_divqat.attacks.recovery.registry import list_recoveries

        return list_recoveries()
    if kind == "defences":
        from art_divqat.defences.registry import list_defences

        return list_defences()
    if kind == "presets":
        from art_divqat.plan.presets import PRESETS

        return PRESETS
    raise unknown_name("kind of name", kind, KINDS)
