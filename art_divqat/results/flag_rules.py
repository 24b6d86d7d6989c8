"""Flag rules: one function per flag, which gives the reason to raise it, or None.

A new flag is one function here, declared by :func:`~art_divqat.results.flag_evidence.rule` and listed in RULES, and its
heading in `docs/flags.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

from art_divqat.attacks.extraction.registry import ATTACKS, read_attack
from art_divqat.data.pools import IN_DISTRIBUTION
from art_divqat.results.flag_evidence import Evidence, Rule, first_few, group_label, offenders, percent, rule
from art_divqat.victims.specs import has_mixture_alone, read_victim

# from here on public networks know what is in colour images
_PHOTOGRAPH_SIDE = 64


@rule(
    "incomplete",
    "Groups and comparisons may lack seeds, budgets or whole victims; the best attacker may be missing.",
    "Run the same command again: it goes on where it stopped.",
)
def incomplete(e: Evidence) -> str | None:
    """Cells are missing."""
    done, planned = len(e.results.cells), e.results.planned
    return f"{done:,} of {planned:,} cells have finished." if done < planned else None


@rule(
    "one-seed",
    "Thieves of one recipe differ from seed to seed, often by more than defences do. One seed shows none of it: "
    "its intervals cover the test images alone.",
    "Run at least three seeds: --seeds 3.",
)
def one_seed(e: Evidence) -> str | None:
    """A group ran with one seed."""
    few = [row for row in e.rows if row.n_seeds < 2]
    return f"{len(few):,} of {len(e.rows):,} groups ran with a single seed." if few else None


@rule(
    "no-random-baseline",
    "Random queries on an equal recipe are hard to beat. Without them nobody knows whether a cleverer attack "
    "adds anything, or is even worse.",
    "Add --attack knockoff, which queries at random.",
)
def no_random_baseline(e: Evidence) -> str | None:
    """No attack queried at random; one that is not known here is taken to choose."""
    attacks = list(dict.fromkeys(row.attack for row in e.rows))
    entries = [ATTACKS.find(read_attack(attack).name) for attack in attacks]
    if any(entry is not None and entry.queries_at_random for entry in entries):
        return None
    return f"Every attack chooses or makes its queries: {', '.join(attacks)}."


@rule(
    "one-pool",
    "How much is stolen depends on the images that are asked. Another pool, such as pictures that a program draws, may "
    "steal far more, and the attacker can see from the answers which one does.",
    "Add --attack scout, which tries many.",
    voids=True,
)
def one_pool(e: Evidence) -> str | None:
    """Every attacker asked the same images, which are not the victim's own kind."""
    specs = [read_attack(attack) for attack in dict.fromkeys(row.attack for row in e.rows)]
    known = [(spec, entry) for spec in specs if (entry := ATTACKS.find(spec.name)) is not None]
    pool = e.results.config.get("query_pool")
    if pool == IN_DISTRIBUTION or any(entry.other_pools(spec.own) for spec, entry in known):
        return None
    asked = [str(spec) for spec, entry in known if entry.needs_pool]
    return f"Every attacker asked the images of {pool}: {first_few(asked)}." if asked else None


@rule(
    "only-soft-answers",
    "A defence that changes probabilities and keeps labels does nothing against a thief who uses labels alone; "
    "such a thief may be the better one.",
    "Add hard answers: --answers soft --answers hard.",
    voids=True,
)
def only_soft(e: Evidence) -> str | None:
    """No attacker tried labels alone, or the top few probabilities."""
    return "Every attacker used probabilities." if {row.answers for row in e.rows if row.budget} == {"soft"} else None


@rule(
    "no-adaptive-attacker",
    "The defence was scored by attackers who do not know of it. One who does may undo it: its score is an upper bound.",
    "Add an attacker who undoes it: --attack knockoff:recovery=invert, dae, bayes or average.",
    voids=True,
)
def no_adaptive_attacker(e: Evidence) -> str | None:
    """A defence met no attacker who knows of it: one with a recovery= that undoes it, or whose cells say so."""
    defences = list(dict.fromkeys(row.defence for row in e.rows if row.defence != "none"))
    recorded = {cell.attack for cell in e.cells if cell.details.get("adaptive_attacker", 0) > 0}
    attacks = {row.attack for row in e.rows}
    adaptive = recorded | {attack for attack in attacks if read_attack(attack).undoes_a_defence}
    met = {row.defence for row in e.rows if row.attack in adaptive}
    missing = [defence for defence in defences if defence not in met]
    return f"No attacker did anything about {', '.join(missing)}." if missing else None


@rule(
    "thieves-from-nothing",
    "Who copies a model of photographs begins from a public network, which knows such images already. Thieves that "
    "begin from nothing learn far less from the same answers: the model looks much harder to steal than it is.",
    "Give thieves public weights: --thief-weights imagenet, package:NAME or a file, with --thief-model where needed.",
    voids=True,
)
def from_nothing(e: Evidence) -> str | None:
    """The images are in colour and large, and no thief began from public weights."""
    shape = e.results.dataset.get("input_shape")
    if not isinstance(shape, list | tuple) or len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < _PHOTOGRAPH_SIDE:
        return None
    if e.results.config.get("thief_weights") is not None:
        return None
    return f"The images are {shape[1]}×{shape[2]} in colour, and every thief began from nothing."


@rule(
    "thief-undertrained",
    "The attack was stopped early or fitted badly, so the victim looks harder to steal than it is.",
    "Give thieves more epochs or a fitting learning rate in thief_recipe.",
    voids=True,
)
def undertrained(e: Evidence) -> str | None:
    """A thief could have been trained better."""
    falling = offenders(e.detail("thief_final_loss_slope"), lambda slope: slope < -e.tolerances.loss_slope)
    if falling:
        return f"The thief's training loss was still falling when training ended in {first_few(falling)}."
    accuracy = {
        group_label(row): row.metrics["thief_accuracy"].mean for row in e.rows if "thief_accuracy" in row.metrics
    }
    probes = e.detail("linear_probe_accuracy")
    worse = [name for name in probes if name in accuracy and accuracy[name] < probes[name] - e.tolerances.accuracy]
    if worse:
        return f"A linear classifier trained on the same answers did better than the thief in {first_few(worse)}."
    return None


@rule(
    "agreement-saturated",
    "The budgets cannot tell victims apart, and the fraction of queries for the same level is only an upper bound.",
    "Add smaller budgets.",
)
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
    return f"The smallest budget already gave nearly all of the agreement in {first_few(flat)}." if flat else None


@rule(
    "pool-overlaps-training-data",
    "The attacker is given images that no attacker would have, and the thief learns from the victim's own memory.",
    "Query with another data set, or take the training images out of the pool.",
)
def pool_overlap(e: Evidence) -> str | None:
    """The pool holds the victim's training images; said by the cells or by the data."""
    found = offenders(e.detail("pool_overlap"), lambda part: part > 0)
    pool = e.results.data.get("pool")
    if not found and isinstance(pool, Mapping) and isinstance(pool.get("overlap"), int | float) and pool["overlap"] > 0:
        return f"{percent(pool['overlap'], 2)} of the pool's images are in the victim's training data."
    if not found:
        return None
    return f"Up to {percent(max(found.values()), 2)} of the pool's images are in the victim's training data."


@rule(
    "test-images-in-training-data",
    "Accuracy and agreement are partly measured on images that the victim was fitted on or that the attacker may have "
    "asked: both look better than on new images. Only images that are equal pixel for pixel are counted, near-copies "
    "are not looked for: the true part may be larger.",
    "Take these images out of the test set or out of the training images, and run again.",
)
def test_overlap(e: Evidence) -> str | None:
    """Test images are also among the training, validation or in-distribution query images; said by the data."""
    part = e.results.dataset.get("test_overlap")
    if not isinstance(part, int | float) or part <= e.tolerances.test_overlap:
        return None
    return (
        f"{percent(part, 2)} of the test images are, pixel for pixel, also among the data set's training, validation "
        "or in-distribution query images."
    )


@rule(
    "mixture-alone-on-colour-images",
    "The mixture is drawn pictures and patches of two photographs. Networks of photographs answer natural images of "
    "other classes otherwise than those, so DivQAT hardly changes what such queries tell.",
    "Train with natural images of other classes: --victim divqat:auxiliary=NAME, npz:PATH or folder:PATH; or with "
    "mixtures of features: --victim divqat:alpha_mixtures=0.1,head=hidden.",
)
def mixture_alone(e: Evidence) -> str | None:
    """A victim of colour images was trained by DivQAT with the default mixture and nothing else."""
    shape = e.results.dataset.get("input_shape")
    if not isinstance(shape, list | tuple) or not shape or shape[0] != 3:
        return None
    alone = [name for name in dict.fromkeys(row.victim for row in e.rows) if has_mixture_alone(read_victim(name))]
    return f"The images are in colour, and the mixture was all that trained {first_few(alone)}." if alone else None


@rule(
    "answers-off-simplex",
    "The victim answers with logits or unnormalised scores. A thief trained on them as probabilities is no "
    "measure of anything, and defences work on numbers that they were not made for.",
    "Put a softmax behind the model, or say that it gives logits.",
    voids=True,
)
def off_simplex(e: Evidence) -> str | None:
    """Answers are no probabilities."""
    found = offenders(e.detail("victim_simplex_error"), lambda error: error > e.tolerances.simplex)
    return f"Answers miss the simplex by up to {max(found.values()):.3g} in {first_few(found)}." if found else None


@rule(
    "victim-nondeterministic",
    "Agreement has a ceiling below 1, numbers do not repeat, and asking twice may average the noise away.",
    "Turn the randomness off, or add an attacker who repeats queries.",
    voids=True,
)
def nondeterministic(e: Evidence) -> str | None:
    """One image, two answers."""
    found = offenders(e.detail("victim_nondeterminism"), lambda gap: gap > e.tolerances.determinism)
    return f"The same image got answers up to {max(found.values()):.3g} apart in {first_few(found)}." if found else None


@rule(
    "victim-in-train-mode",
    "Dropout and batch statistics are active: answers depend on the rest of the batch; accuracy is too low.",
    "Call eval() on the network before it is audited.",
    voids=True,
)
def train_mode(e: Evidence) -> str | None:
    """Dropout or batch statistics were active."""
    found = offenders(e.detail("victim_train_mode"), lambda mode: mode > 0)
    return f"The victim answered in train mode in {first_few(found)}." if found else None


@rule(
    "labels-flipped",
    "Rightful users get wrong answers. Part of what looks like protection is a victim that is worse.",
    "Use the defence's label-preserving mode, or weaken it; compare defended_accuracy.",
)
def labels_flipped(e: Evidence) -> str | None:
    """A defence changes labels."""
    rates: dict[str, float] = {}
    for row in e.rows:
        # of an audited model without a defence of ours, what flips is its own randomness, which another flag names
        if row.defence != "none" and "label_flip_rate" in row.metrics:
            name = f"{row.defence} on {row.victim}"
            rates[name] = max(rates.get(name, 0.0), row.metrics["label_flip_rate"].mean)
    found = offenders(rates, lambda rate: rate > e.tolerances.flips)
    rates_text = first_few(f"{name} {percent(rate)}" for name, rate in found.items())
    return (
        f"The defence changed more than {percent(e.tolerances.flips)} of the labels: {rates_text}." if found else None
    )


@rule(
    "budget-not-exhausted",
    "The attack did not use what it was given; at this budget the victim looks harder to steal than it is.",
    "Let the attack spend its budget, or state the number of queries that it made as the budget.",
    voids=True,
)
def budget_left(e: Evidence) -> str | None:
    """Queries were left over."""
    # an attack that asks every image several times may be left with less than one image costs
    left = dict.fromkeys(
        group_label(cell)
        for cell in e.cells
        if cell.budget - cell.queries >= max(1.0, cell.details.get("queries_per_image", 1.0))
    )
    return f"Fewer queries were made than allowed in {first_few(left)}." if left else None


RULES: tuple[Rule, ...] = (
    incomplete,
    one_seed,
    no_random_baseline,
    one_pool,
    only_soft,
    no_adaptive_attacker,
    from_nothing,
    undertrained,
    saturated,
    pool_overlap,
    test_overlap,
    mixture_alone,
    off_simplex,
    nondeterministic,
    train_mode,
    labels_flipped,
    budget_left,
)
