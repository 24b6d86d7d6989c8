"""Seeds added until the leading comparison was decided: report that, and the resulting level of verdicts."""

from __future__ import annotations

from art_divqat.plan.looks import looks, number_of_looks
from art_divqat.report.findings import is_decided
from art_divqat.report.text import counted, plain
from art_divqat.results.effects import SIGNIFICANCE
from art_divqat.results.schema import Results


def level_text(results: Results) -> str:
    """The level of a family of tests, in percent."""
    return f"{plain(100 * SIGNIFICANCE / number_of_looks(results.config))} %"


def seeds_added(results: Results) -> str:
    """How seeds were added and why no more were; empty where their number was given."""
    if results.config.get("seeds") != "auto":
        return ""
    schedule = looks(results.config["max_seeds"])
    begun = max((row.n_seeds for row in results.summary), default=0)
    whole = len(results.cells) >= results.planned
    made = [seeds for seeds in schedule if seeds < begun or (seeds == begun and whole)]
    if not whole:
        end = "and is not complete"
    elif is_decided(results):
        end = f"and stopped at {counted(begun, 'seed')}, where it was"
    elif begun >= schedule[-1]:
        end = f"and stopped at the largest number, {begun:,}, where it was not"
    else:
        end = f"and stopped undecided at {counted(begun, 'seed')}, as its time was spent; the same command goes on"
    return (
        f"The run added seeds until the leading comparison was decided, {end}. It looked {counted(len(made), 'time')}"
        f"{f' ({_listed(made)} seeds)' if made else ''} of at most {len(schedule)} ({_listed(schedule)}), and every "
        f"verdict is at the {level_text(results)} level, so that false decisions stay below 5 % over all looks."
    )


def _listed(numbers: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
