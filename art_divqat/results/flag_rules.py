"""What results say against themselves: one function for each flag, giving the reason or None.

What only a cell can know it writes into its `details`, under the keys of DETAILS; a key that is absent raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from art_divqat.attacks.extraction.registry import ATTACKS, read_attack
from art_divqat.metrics.table import THIEF_ROBUST_ACCURACY, TRANSFER_ROBUST_ACCURACY
from art_divqat.results.schema import CellResult, Results, SummaryRow
from art_divqat.victims.registry import known_victim

DETAILS: dict[str, str] = {
    "thief_final_loss_slope": "change of the thief's training loss over its last tenth of epochs, over its level there",
    "linear_probe_accuracy": "test accuracy of a linear classifier trained on the same answers as the thief",
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
    :param simplex: distance of an answer from a probability vector.
    :param determinism: difference of two answers to one image.
    """

    flips: float = 0.01
    saturation: float = 0.98
    loss_slope: float = 0.05
    accuracy: float = 0.02
    simplex: float = 1e-3
    determinism: float = 1e-5


@dataclass
class Evidence:
    """The results, with what several reasons ask of them."""

    results: Results
    tolerances: Tolerances
    rows: list[SummaryRow] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.results.summary

    @cached_property
    def groups(self) -> dict[str, list[CellResult]]:
        found: dict[str, list[CellResult]] = {}
        for cell in self.results.cells:
            found.setdefault(place(cell), []).append(cell)
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


def place(row: CellResult | SummaryRow) -> str:
    """Where a number stands: victim, defence, attack, answers, budget."""
    return f"{row.victim}, {row.defence}, {row.attack}, {row.answers}, {row.budget}"


def listed(places: Iterable[str], most: int = 3) -> str:
    """The first few places, and how many more there are."""
    found = list(places)
    more = f"; and {len(found) - most:,} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more


def where(values: Mapping[str, float], wrong: Callable[[float], bool]) -> dict[str, float]:
    """The places whose value is wrong."""
    return {name: value for name, value in values.items() if wrong(value)}


def incomplete(e: Evidence) -> str | None:
    """Cells are missing."""
    done, planned = len(e.results.cells), e.results.planned
    return f"{done:,} of {planned:,} cells have finished." if done < planned else None


def one_seed(e: Evidence) -> str | None:
    """A group ran with one seed."""
    few = [row for row in e.rows if row.n_seeds < 2]
    return f"{len(few):,} of {len(e.rows):,} groups ran with a single seed." if few else None


def no_random_baseline(e: Evidence) -> str | None:
    """No attack queried at random; one that is not known here is taken to choose."""
    attacks = list(dict.fromkeys(row.attack for row in e.rows))
    entries = [ATTACKS.find(read_attack(attack).name) for attack in attacks]
    if any(entry is not None and entry.queries_at_random for entry in entries):
        return None
    return f"Every attack chooses or makes its queries: {', '.join(attacks)}."


def only_soft(e: Evidence) -> str | None:
    """No attacker tried labels alone, or the top few probabilities."""
    return "Every attacker used probabilities." if {row.answers for row in e.rows} == {"soft"} else None


def no_adaptive_attacker(e: Evidence) -> str | None:
    """A defence met no attacker who knows of it: one with a recovery= that undoes it, or whose cells say so."""
    defences = list(dict.fromkeys(row.defence for row in e.rows if row.defence != "none"))
    told = {cell.attack for cell in e.results.cells if cell.details.get("adaptive_attacker", 0) > 0}
    attacks = {row.attack for row in e.rows}
    adaptive = told | {attack for attack in attacks if read_attack(attack).undoes_a_defence}
    met = {row.defence for row in e.rows if row.attack in adaptive}
    missing = [defence for defence in defences if defence not in met]
    return f"No attacker did anything about {', '.join(missing)}." if missing else None


def undertrained(e: Evidence) -> str | None:
    """A thief could have been trained better."""
    falling = where(e.detail("thief_final_loss_slope"), lambda slope: slope < -e.tolerances.loss_slope)
    if falling:
        return f"The thief's training loss was still falling when training ended in {listed(falling)}."
    accuracy = {place(row): row.metrics["thief_accuracy"].mean for row in e.rows if "thief_accuracy" in row.metrics}
    probes = e.detail("linear_probe_accuracy")
    worse = [name for name in probes if name in accuracy and accuracy[name] < probes[name] - e.tolerances.accuracy]
    if worse:
        return f"A linear classifier trained on the same answers did better than the thief in {listed(worse)}."
    return None


def saturated(e: Evidence) -> str | None:
    """Agreement hardly grows from the smallest budget on."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in e.rows:
        if "agreement" in row.metrics:
            name = f"{row.victim}, {row.defence}, {row.attack}, {row.answers}"
            curves.setdefault(name, []).append((row.budget, row.metrics["agreement"].mean))
    flat = []
    for name, curve in curves.items():
        smallest, highest = min(curve)[1], max(value for _, value in curve)
        # a thief that learns nothing at any budget is flat too, but there is nothing saturated about it
        if len(curve) > 1 and highest > 0.5 and smallest >= e.tolerances.saturation * highest:
            flat.append(name)
    return f"The smallest budget already gave nearly all of the agreement in {listed(flat)}." if flat else None


def pool_overlap(e: Evidence) -> str | None:
    """The pool holds the victim's training images; said by the cells or by the data."""
    found = where(e.detail("pool_overlap"), lambda part: part > 0)
    pool = e.results.data.get("pool")
    if not found and isinstance(pool, Mapping) and isinstance(pool.get("overlap"), int | float) and pool["overlap"] > 0:
        return f"{pool['overlap']:.2%} of the pool's images are in the victim's training data."
    return f"Up to {max(found.values()):.2%} of the pool's images are in the victim's training data." if found else None


def off_simplex(e: Evidence) -> str | None:
    """Answers are no probabilities."""
    found = where(e.detail("victim_simplex_error"), lambda error: error > e.tolerances.simplex)
    return f"Answers miss the simplex by up to {max(found.values()):.3g} in {listed(found)}." if found else None


def nondeterministic(e: Evidence) -> str | None:
    """One image, two answers."""
    found = where(e.detail("victim_nondeterminism"), lambda gap: gap > e.tolerances.determinism)
    return f"The same image got answers up to {max(found.values()):.3g} apart in {listed(found)}." if found else None


def train_mode(e: Evidence) -> str | None:
    """Dropout or batch statistics were active."""
    found = where(e.detail("victim_train_mode"), lambda mode: mode > 0)
    return f"The victim answered in train mode in {listed(found)}." if found else None


def labels_flipped(e: Evidence) -> str | None:
    """A defence changes labels."""
    rates: dict[str, float] = {}
    for row in e.rows:
        if "label_flip_rate" in row.metrics:
            name = f"{row.defence} on {row.victim}"
            rates[name] = max(rates.get(name, 0.0), row.metrics["label_flip_rate"].mean)
    found = where(rates, lambda rate: rate > e.tolerances.flips)
    told = listed(f"{name} {rate:.1%}" for name, rate in found.items())
    return f"The defence changed more than {e.tolerances.flips:.1%} of the labels: {told}." if found else None


def budget_left(e: Evidence) -> str | None:
    """Queries were left over."""
    # an attack that asks every image several times may be left with less than one image costs
    left = dict.fromkeys(
        place(cell)
        for cell in e.results.cells
        if cell.budget - cell.queries >= max(1.0, cell.details.get("queries_per_image", 1.0))
    )
    return f"Fewer queries were made than allowed in {listed(left)}." if left else None


def black_box_wins(e: Evidence) -> str | None:
    """Transferred examples beat white-box ones."""
    found = []
    for row in e.rows:
        transfer, white = (row.metrics.get(name) for name in (TRANSFER_ROBUST_ACCURACY, THIEF_ROBUST_ACCURACY))
        if transfer is not None and white is not None and transfer.mean < white.mean - e.tolerances.accuracy:
            found.append(place(row))
    told = "Examples crafted on the victim fool the thief more often than examples crafted on the thief itself in"
    return f"{told} {listed(found)}." if found else None


def suspicious(e: Evidence) -> str | None:
    """The attack hardly lowers accuracy: below half for a plain victim, at all for a robust one."""
    epsilon = e.results.config.get("epsilon")
    if not isinstance(epsilon, int | float) or epsilon <= 0:
        return None
    found: dict[str, None] = {}
    for row in e.rows:
        accuracy, robust = row.metrics.get("victim_accuracy"), row.metrics.get("victim_robust_accuracy")
        if accuracy is None or robust is None:
            continue
        entry = known_victim(row.victim)
        hardened = entry is not None and entry.adversarial
        most = accuracy.mean - e.tolerances.accuracy if hardened else accuracy.mean / 2
        if robust.mean > most:
            found.setdefault(f"{row.victim} with {row.defence}: {robust.mean:.1%} of {accuracy.mean:.1%}")
    return f"The attack at ε = {epsilon:g} hardly lowers the accuracy of {listed(found)}." if found else None


def zero_gradients(e: Evidence) -> str | None:
    """Gradients vanish."""
    found = where(e.detail("zero_gradients"), lambda part: part > e.tolerances.accuracy)
    return (
        f"The gradient is exactly zero on up to {max(found.values()):.1%} of images in {listed(found)}."
        if found
        else None
    )


def defence_unseen(e: Evidence) -> str | None:
    """Robust accuracy is that of the undefended network."""
    defended = {place(row) for row in e.rows if row.defence != "none"}
    found = [name for name in where(e.detail("evasion_sees_defence"), lambda seen: seen < 1) if name in defended]
    found += [name for name in where(e.detail("own_defences"), lambda number: number > 0) if name not in found]
    return f"Robust accuracy was measured without the defence in {listed(found)}." if found else None
