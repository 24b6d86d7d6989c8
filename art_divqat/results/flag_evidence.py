"""Evidence for flags: the details that cells record, tolerances, and the declaration of a flag rule.

What only a cell can know it writes into its `details`, under the keys of DIAGNOSTICS; a key that is absent raises no
flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from art_divqat.results.probes import is_probe
from art_divqat.results.schema import CellResult, Results, SummaryRow
from art_divqat.victims.registry import is_control

DIAGNOSTICS: dict[str, str] = {
    "thief_final_loss_slope": "change of the thief's training loss over its last tenth of epochs, over its level there",
    "linear_probe_accuracy": "test accuracy of a linear classifier trained on the same answers as the thief",
    "linear_probe_agreement": "agreement of that classifier with the labels that the victim serves",
    "linear_probe_agreement_clean": "its agreement with the undefended victim",
    "majority_answer": "part of the test images that got the label which most of them got",
    "pool_overlap": "fraction of the pool's images that are also in the victim's training data",
    "victim_simplex_error": "largest |sum − 1| or negative part of any answer to the attacker",
    "victim_nondeterminism": "largest difference between two answers to the same image",
    "victim_train_mode": "1 if the victim answered in train mode (dropout, batch statistics), else 0",
    "queries_per_image": "what the attack pays for one image, such as the repeats of recovery=average",
    "adaptive_attacker": "1 if the attack does something about the defence, such as undoing it, else 0",
    "evasion_sees_defence": "1 if robust accuracy was measured through the defence, else 0",
    "own_defences": "postprocessors that an audited model came with and that gradient attacks on it do not see",
    "zero_gradients": "fraction of test images where the loss gradient of the attacked network is exactly zero",
    "robust_accuracy_more_steps": "the victim's robust accuracy with five times the steps",
    "robust_accuracy_black_box": "the victim's robust accuracy if Square, which sees no gradients, is tried as well",
    "robust_accuracy_large_epsilon": "the victim's robust accuracy at an ε at which nothing can be told apart (0.5)",
    "accuracy_rise": "by how much the victim's accuracy at a larger ε is above that at a smaller one, at most",
}


@dataclass(frozen=True)
class Tolerances:
    """How much is too much.

    :param flips: labels that a defence may change.
    :param saturation: agreement at the smallest budget over the highest, above which a curve is called flat.
    :param loss_slope: relative fall of the thief's training loss that counts as still falling.
    :param accuracy: a difference of accuracies that is not worth a word.
    :param test_overlap: part of the test images that may also be training images.
    :param simplex: distance of an answer from a probability vector.
    :param determinism: difference of two answers to one image.
    """

    flips: float = 0.01
    saturation: float = 0.98
    loss_slope: float = 0.05
    accuracy: float = 0.02
    test_overlap: float = 0.001
    simplex: float = 1e-3
    determinism: float = 1e-5


@dataclass
class Evidence:
    """The results, with what several reasons ask of them; what concerns the control alone is left out."""

    results: Results
    tolerances: Tolerances
    rows: list[SummaryRow] = field(init=False)
    cells: list[CellResult] = field(init=False)

    def __post_init__(self) -> None:
        config = self.results.config
        rows = [row for row in self.results.summary if not is_control(row.victim, config)]
        # a probe speaks through the cell that it belongs to
        self.rows = [row for row in rows if not is_probe(row.attack)]
        self.cells = [cell for cell in self.results.cells if not is_control(cell.victim, config)]

    @cached_property
    def groups(self) -> dict[str, list[CellResult]]:
        found: dict[str, list[CellResult]] = {}
        for cell in self.cells:
            found.setdefault(group_label(cell), []).append(cell)
        return found

    def detail(self, key: str) -> dict[str, float]:
        """The mean of a detail over the seeds of every group that has it."""
        return self._details.get(key, {})

    @cached_property
    def _details(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, list[float]]] = {}
        for name, cells in self.groups.items():
            for cell in cells:
                for key, value in cell.details.items():
                    found.setdefault(key, {}).setdefault(name, []).append(value)
        return {key: {name: fmean(values) for name, values in of_key.items()} for key, of_key in found.items()}


def group_label(row: CellResult | SummaryRow) -> str:
    """Where a number stands: victim, defence, attack, answers, budget."""
    return f"{row.victim}, {row.defence}, {row.attack}, {row.answers}, {row.budget}"


def first_few(places: Iterable[str], most: int = 3) -> str:
    """The first few places, and how many more there are."""
    found = list(places)
    more = f"; and {len(found) - most:,} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more


def percent(rate: float, digits: int = 1) -> str:
    """A fraction in percent, as reports write it.

    >>> percent(0.01), percent(0.00124, 2)
    ('1.0 %', '0.12 %')
    """
    return f"{100 * rate:.{digits}f} %"


def offenders(values: Mapping[str, float], wrong: Callable[[float], bool]) -> dict[str, float]:
    """The places whose value is wrong."""
    return {name: value for name, value in values.items() if wrong(value)}


@dataclass(frozen=True)
class Rule:
    """One flag: why it is raised (None keeps it silent), what it means, what to do."""

    name: str
    because: Callable[[Evidence], str | None]
    meaning: str
    remedy: str
    voids: bool


def rule(
    name: str, meaning: str, remedy: str, voids: bool = False
) -> Callable[[Callable[[Evidence], str | None]], Rule]:
    """Declare a flag where its reason is computed.

    :param name: as results.json and `docs/flags.md` have it.
    :param meaning: what a reader must make of it.
    :param remedy: what to do about it.
    :param voids: whether a model that was not stolen may yet be easy to steal where it is raised.
    """
    return lambda because: Rule(name, because, meaning, remedy, voids)
