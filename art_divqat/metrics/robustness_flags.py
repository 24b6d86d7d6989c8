"""Signs that a measured robustness is not to be believed, each computed from measured numbers.

After Carlini et al., On Evaluating Adversarial Robustness (2019), and Athalye, Carlini and Wagner, Obfuscated Gradients
Give a False Sense of Security (ICML 2018). Rates are fractions in [0, 1]; ε is in units of [0, 1] pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from art_divqat._validation import check_float, check_int
from art_divqat.errors import UserError

_MASKED = "gradients are probably masked, and the white-box figure overstates robustness"


@dataclass(frozen=True)
class Flag:
    """One reason not to trust a figure: why it was raised, what it means, what to do."""

    name: str
    raised_because: str
    meaning: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """The four fields as plain JSON values."""
        return asdict(self)


def black_box_beats_white_box(white_box: float, black_box: float, images: int, *, z: float = 1.96) -> Flag | None:
    """Raised if accuracy under a black-box or transfer attack is below that under the white-box one, beyond chance.

    Beyond chance: by more than `z` standard errors of a difference of two rates over `images` images, which is
    cautious, because both attacks ran on the same images.

    :param white_box: accuracy under the attack with gradients.
    :param black_box: accuracy under the attack without them, at the same ε.
    :raises UserError: for a rate outside [0, 1] or no images.

    >>> black_box_beats_white_box(0.60, 0.40, images=200).name
    'black-box-beats-white-box'
    >>> black_box_beats_white_box(0.40, 0.42, images=200) is None
    True
    """
    white, black = _rate("white_box", white_box), _rate("black_box", black_box)
    count = check_int("black_box_beats_white_box", "images", images, 1)
    error = ((white * (1 - white) + black * (1 - black)) / count) ** 0.5
    if white - black <= z * error:
        return None
    return Flag(
        "black-box-beats-white-box",
        f"accuracy is {black:.3f} under an attack without gradients and {white:.3f} under one with them, on {count} "
        "images",
        f"an attacker who knows more should do better: {_MASKED}",
        "report the lower figure; attack with more steps and restarts, with AutoAttack, and through a surrogate",
    )


def large_epsilon_survived(
    curve: Mapping[float, float], nb_classes: int, *, large: float = 0.5, tolerance: float | None = None
) -> Flag | None:
    """Raised if accuracy at an ε of at least `large` is not near zero.

    At ε = 0.5 every image can be turned into plain grey, on which no classifier beats chance; an attack that aims
    should get well below chance.

    :param curve: ε → accuracy; without an ε of at least `large` there is nothing to judge, and no flag.
    :param nb_classes: number of classes.
    :param tolerance: the highest accuracy that counts as near zero; by default that of chance, 1 / classes.
    :raises UserError: for a rate outside [0, 1].

    >>> large_epsilon_survived({0.1: 0.8, 0.5: 0.3}, nb_classes=10).name
    'large-epsilon-survived'
    >>> large_epsilon_survived({0.1: 0.8, 0.5: 0.0}, nb_classes=10) is None
    True
    """
    check_int("large_epsilon_survived", "nb_classes", nb_classes, 2)
    beyond = {epsilon: _rate("curve", rate) for epsilon, rate in curve.items() if epsilon >= large}
    limit = 1 / nb_classes if tolerance is None else _rate("tolerance", tolerance)
    if not beyond or min(beyond.values()) <= limit:
        return None
    epsilon = min(beyond, key=lambda e: (beyond[e], e))
    return Flag(
        "large-epsilon-survived",
        f"accuracy is still {beyond[epsilon]:.3f} at ε = {epsilon:g}, above {limit:.3f}",
        f"so large a perturbation can erase any image, so the attack does not work here: {_MASKED}",
        "check the attack on the undefended network, take more steps and restarts, and add an attack without gradients",
    )


def accuracy_rises_with_epsilon(curve: Mapping[float, float], images: int, *, z: float = 1.96) -> Flag | None:
    """Raised if a larger ball gives a higher accuracy, beyond chance: the smaller ball lies inside it.

    :param curve: ε → accuracy on the same `images` images.
    :raises UserError: for a rate outside [0, 1] or no images.

    >>> accuracy_rises_with_epsilon({0.1: 0.2, 0.2: 0.5}, images=200).name
    'accuracy-rises-with-epsilon'
    >>> accuracy_rises_with_epsilon({0.1: 0.5, 0.2: 0.2}, images=200) is None
    True
    """
    count, lowest = check_int("accuracy_rises_with_epsilon", "images", images, 1), (0.0, 1.0)
    for epsilon in sorted(curve):
        rate = _rate("curve", curve[epsilon])
        error = ((rate * (1 - rate) + lowest[1] * (1 - lowest[1])) / count) ** 0.5
        if rate - lowest[1] > z * error:
            return Flag(
                "accuracy-rises-with-epsilon",
                f"accuracy is {lowest[1]:.3f} at ε = {lowest[0]:g} and {rate:.3f} at ε = {epsilon:g}",
                "the smaller ball lies inside the larger one, so the attack at the larger ε missed what is there",
                "read every point as an upper bound; take more steps, a smaller step and restarts at the larger ε",
            )
        if rate <= lowest[1]:
            lowest = (epsilon, rate)
    return None


def zero_gradients(fraction: float, *, limit: float = 0.05) -> Flag | None:
    """Raised if the loss has an exactly zero gradient on more than `limit` of the correctly classified images.

    The fraction is `(gradient_norms(network, x, y) == 0).mean()`, of :mod:`art_divqat.attacks.evasion`.

    :raises UserError: for a rate outside [0, 1].

    >>> zero_gradients(0.3).name
    'zero-gradients'
    >>> zero_gradients(0.0) is None
    True
    """
    share = _rate("fraction", fraction)
    if share <= _rate("limit", limit):
        return None
    return Flag(
        "zero-gradients",
        f"the gradient of the loss is exactly zero on {share:.1%} of the images",
        "there gradient attacks stand still, whether the network is robust or merely very sure or rounded",
        "attack the logits instead of a softmax, use a margin loss (AutoAttack has one), Square, or a differentiable "
        "twin",
    )


def more_steps_matter(few: float, many: float, few_steps: int, many_steps: int, *, limit: float = 0.05) -> Flag | None:
    """Raised if accuracy falls by more than `limit` from `few_steps` to `many_steps` steps: it had not converged.

    :raises UserError: for a rate outside [0, 1], or `many_steps` not above `few_steps`.

    >>> more_steps_matter(0.55, 0.40, 20, 200).name
    'more-steps-matter'
    >>> more_steps_matter(0.41, 0.40, 20, 200) is None
    True
    """
    before, after = _rate("few", few), _rate("many", many)
    check_int("more_steps_matter", "few_steps", few_steps, 1)
    if check_int("more_steps_matter", "many_steps", many_steps, 1) <= few_steps:
        raise UserError(f"more_steps_matter compares few steps with more. Got {few_steps} and {many_steps}.")
    if before - after <= _rate("limit", limit):
        return None
    return Flag(
        "more-steps-matter",
        f"accuracy falls from {before:.3f} with {few_steps} steps to {after:.3f} with {many_steps}",
        f"the attack had not converged after {few_steps} steps, so the first figure overstates robustness",
        "take more steps until the figure stands still, and report that one",
    )


def postprocessor_seen(has_postprocessor: bool, attack_sees_it: bool) -> Flag | None:
    """Says, where a postprocessor changes the answers, whether the evasion attack saw it.

    >>> postprocessor_seen(True, False).name
    'postprocessor-not-seen'
    >>> postprocessor_seen(True, True).name
    'postprocessor-seen'
    >>> postprocessor_seen(False, False) is None
    True
    """
    if not has_postprocessor:
        return None
    if attack_sees_it:
        return Flag(
            "postprocessor-seen",
            "the attack read its scores through the defence's postprocessor",
            "a postprocessor that rounds or perturbs scores hinders the attack without making the network more robust",
            "attack the network behind it as well, and report the lower figure",
        )
    return Flag(
        "postprocessor-not-seen",
        "the attack used the network behind the defence's postprocessor",
        "the figure is that of the network: the postprocessor neither helped nor hindered, and one that changes the "
        "top class is not in it",
        "for what a user of the service sees, count the defended answers on the same examples",
    )


def _rate(name: str, value: float) -> float:
    return check_float("a robustness flag", name, value, 0, 1)
