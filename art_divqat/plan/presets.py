"""Presets: fill in every option that was not given, so that a configuration is complete."""

from __future__ import annotations

from art_divqat.attacks.extraction.registry import AttackSpec, parse_attack
from art_divqat.data.pools import canonical_pool, default_pool
from art_divqat.data.sources import DATASETS, DatasetEntry, canonical_dataset, dataset_entry
from art_divqat.defences.registry import DefenceSpec, parse_defence
from art_divqat.errors import UserError
from art_divqat.models.registry import CARRIER, SMALL_SIDE, carried_is_at_hand, check_model, model_for
from art_divqat.plan.cells import applies
from art_divqat.plan.conditions import parse_condition
from art_divqat.plan.config import EvaluateConfig, Evasion, Recipe, ResolvedConfig, validated
from art_divqat.victims.external.settings import resolve_external
from art_divqat.victims.registry import CONTROL, baseline_of
from art_divqat.victims.specs import VictimSpec, parse_victim, with_baselines

# larger images and more classes take longer: --dry-run measures it
PRESETS: dict[str, str] = {
    "quick": "three seeds, three budgets, PGD-20 on 200 images: for digits, minutes on a laptop",
    "standard": "three seeds, five budgets, longer training, PGD-50 on 1,000 images: for digits, hours on a laptop",
    "paper": "the budgets and schedules of arXiv 2207.10561, AutoAttack: for a GPU",
}
_BUDGETS = {
    "quick": (250, 500, 1_000),
    "standard": (1_000, 2_500, 5_000, 7_500, 10_000),
    "paper": (1_000, *range(5_000, 50_001, 5_000)),
}
_EVASION = {
    "quick": Evasion(images=200, steps=20),
    "standard": Evasion(images=1_000, steps=50),
    "paper": Evasion(images=1_000, steps=50, autoattack=True),
}
# above 64×64 a step of an attack costs fifty times as much: a figure of few images, and of a model of one's own none
_EVASION_OF_LARGE = Evasion(images=32, steps=10, epsilons=())
_NO_EVASION = Evasion(images=0)
# what is hot enough to learn from nothing takes from public weights what they know; of .0001, .0003, .001 and .002 this
# left the best thief of photographs at 96×96
_FINE_TUNING_RATE = 1e-3
# arXiv 2207.10561; robustness to 0 is the accuracy
_PAPER_EPSILONS = (0.0, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def resolve(config: EvaluateConfig, side: int | None = None) -> ResolvedConfig:
    """The same configuration with every name canonical, every default filled in and baselines added.

    :param side: the smaller side of the images, where somebody has looked and the configuration does not say it.
    :raises UserError: for a name that is not known, or one that is given twice in two spellings.

    >>> [str(victim) for victim in resolve(EvaluateConfig(victims=("robust",))).victims]
    ['standard', 'robust:epsilon=0.2']
    """
    dataset = canonical_dataset(config.dataset)
    known = dataset_entry(dataset)
    epsilon = known.epsilon if config.epsilon is None else config.epsilon
    pool = canonical_pool(config.query_pool or default_pool(dataset))
    given, external = resolve_external(config.victims, config.external, config.model)
    victims = tuple(parse_victim(victim, epsilon=epsilon, query_pool=pool) for victim in given)
    small = known.simple
    paper = config.preset == "paper"
    side = side if config.image_size is None else min(config.image_size)
    config = _with_public_thief(config, small, side)
    model, thief_model = _models(config, small, side)
    budgets = config.budgets
    if budgets is None:
        budgets = (1_000, *range(2_000, 10_001, 1_000)) if paper and small else _BUDGETS[config.preset]
    attacks = _attacks(config)
    defences = tuple(parse_defence(defence) for defence in config.defences)
    for attack in attacks:
        if not any(applies(attack, defence, answers) for defence in defences for answers in config.answers):
            raise UserError(
                f"Attack {str(attack)!r} undoes a defence, from soft answers, and there is none to undo: add one it "
                "applies to with --defence, and --answers soft."
            )
    baselined = with_baselines(victims) if config.baseline else victims
    baselined, control = _with_control(config, baselined)
    _check_seeds(config, baselined, defences)
    for condition in config.fail_on:
        parse_condition(condition)
    weights = config.weights
    if control and config.model is None:
        # what an attacker trains is what the same data trains well
        model, weights = thief_model, weights or config.thief_weights
    training = _training(config, weights, victims, bool(control))
    thief_training = _thief_training(config)
    thief_recipe = _thief_recipe(config.preset, known)
    victim_recipe = _victim_recipe(config.preset, known)
    if control and not paper and dataset not in DATASETS:
        # a few hundred images of one's own are too few for five epochs of them
        victim_recipe = thief_recipe
    if not paper:
        victim_recipe = _gentle(victim_recipe) if training == "fine-tune" else victim_recipe
        thief_recipe = _gentle(thief_recipe) if thief_training == "fine-tune" else thief_recipe
    values = {
        "dataset": dataset,
        "victims": baselined,
        "control": control,
        "attacks": attacks,
        "defences": defences,
        "budgets": budgets,
        "query_pool": pool,
        "seeds": config.seeds or 3,
        "model": model,
        "thief_model": thief_model,
        "weights": weights,
        "training": training,
        "thief_training": thief_training,
        "epsilon": epsilon,
        "victim_recipe": config.victim_recipe or victim_recipe,
        "thief_recipe": config.thief_recipe or thief_recipe,
        "evasion": _evasion(config, epsilon, victims, side),
    }
    unwritten = {"trust_code": config.trust_code, "answers_file": config.answers_file, "external": external}
    return validated(ResolvedConfig, {**config.model_dump(), **values, **unwritten})


def _with_public_thief(config: EvaluateConfig, simple: bool, side: int | None) -> EvaluateConfig:
    """Whoever copies a model of photographs begins from a public network: thieves do where one is installed."""
    asked = config.thief_model is not None or config.thief_weights is not None
    if asked or simple or config.preset == "paper" or side is None or side <= SMALL_SIDE or not carried_is_at_hand():
        return config
    return config.model_copy(update={"thief_weights": f"package:{CARRIER}"})


def _models(config: EvaluateConfig, simple: bool, side: int | None) -> tuple[str, str]:
    """The architectures of victims and thieves; by default none that keeps the full size of large images at first."""
    large, paper = side is not None and side > SMALL_SIDE, config.preset == "paper"
    usual = "small-cnn" if simple else "resnet34" if paper else "resnet20"
    if large:
        usual = "resnet34" if paper else "resnet18"
    model = check_model(config.model or model_for(config.weights, usual, large=large))
    usual = "vgg16" if paper and not (simple or large) else model
    return model, check_model(config.thief_model or model_for(config.thief_weights, usual, large=large))


def _thief_training(config: EvaluateConfig) -> str | None:
    """A thief with a public network asks little of a machine as long as it trains a head alone."""
    if config.thief_weights is None:
        if config.thief_training is not None:
            raise UserError("Option thief_training: it is of thieves with public weights; give --thief-weights.")
        return None
    return config.thief_training or "probe"


def _training(
    config: EvaluateConfig, weights: str | None, victims: tuple[VictimSpec, ...], control: bool
) -> str | None:
    """Victims are tuned, as deployed ones are; a control that stands alone is trained as thieves are."""
    if weights is None:
        if config.training is not None:
            raise UserError("Option training: it is of victims with public weights; give --weights.")
        return None
    trained = [victim for victim in victims if not victim.is_external]
    if config.training is None and control and not trained:
        return _thief_training(config) or "fine-tune"
    others = [str(victim) for victim in trained if victim.entry.adversarial]
    if config.training == "probe" and others:
        raise UserError(f"Option training: probe leaves the public network as it is; {others[0]} needs fine-tune.")
    return config.training or "fine-tune"


def _with_control(
    config: EvaluateConfig, victims: tuple[VictimSpec, ...]
) -> tuple[tuple[VictimSpec, ...], bool | None]:
    """The victims, with an undefended one beside a model of one's own, and whether it is only that.

    One that was asked for by name is a victim like any other, unless the configuration of a run says that it is none.
    """
    if not any(victim.is_external for victim in victims):
        if config.control:
            raise UserError("Option control: a control stands beside a model of one's own, and none is audited here.")
        return victims, None
    there = any(victim.name == CONTROL for victim in victims)
    if config.control is False or (there and config.control is None):
        return victims, False
    return (victims if there else (*victims, VictimSpec(CONTROL))), True


def _check_seeds(config: EvaluateConfig, victims: tuple[VictimSpec, ...], defences: tuple[DefenceSpec, ...]) -> None:
    if config.seeds != "auto":
        for name in ("max_seeds", "max_minutes"):
            # a configuration that was written down whole names them too
            if getattr(config, name) != type(config).model_fields[name].default:
                raise UserError(f"Option {name}: expected with seeds: auto alone, got seeds {config.seeds or 3}.")
        return
    names = [str(victim) for victim in victims]
    compared = any(baseline_of(name, names) is not None for name in names)
    if not compared and not ("none" in map(str, defences) and len(defences) > 1):
        raise UserError(
            "Option seeds: auto adds seeds until a comparison is decided, and here is none: name a victim that has a "
            "baseline, or defences beside none, or give a number of seeds."
        )


def _attacks(config: EvaluateConfig) -> tuple[AttackSpec, ...]:
    """The attacks that were asked for, after what an attacker with labelled images of their own has without a query."""
    attacks = tuple(parse_attack(attack) for attack in config.attacks)
    for attack in attacks:
        attack.check_own(config.attacker_images, config.attacker_labels)
    if not (config.baseline and config.attacker_images and config.attacker_labels):
        return attacks
    without_queries = [attack for attack in attacks if not attack.asks_victim] or [parse_attack("own-images")]
    return (*without_queries, *(attack for attack in attacks if attack.asks_victim))


def curve_epsilons(preset: str, epsilon: float) -> tuple[float, ...]:
    """The radii of the curves: 0, a quarter, a half, once and twice ε if `quick`, else the paper's list and ε itself.

    >>> curve_epsilons("quick", 0.2)
    (0.0, 0.05, 0.1, 0.2, 0.4)
    """
    if preset == "quick":
        radii = {min(epsilon * part, 1.0) for part in (0, 0.25, 0.5, 1, 2)}
    else:
        radii = {*_PAPER_EPSILONS, epsilon}
    return tuple(sorted(radii))


def _evasion(config: EvaluateConfig, epsilon: float, victims: tuple[VictimSpec, ...], side: int | None) -> Evasion:
    evasion = config.evasion or _EVASION[config.preset]
    if config.evasion is None and config.preset == "quick" and side is not None and side > SMALL_SIDE:
        audited = any(victim.is_external for victim in victims)
        evasion = _NO_EVASION if audited else _EVASION_OF_LARGE
    if evasion.epsilons is not None:
        return evasion
    return evasion.model_copy(update={"epsilons": curve_epsilons(config.preset, epsilon)})


def _victim_recipe(preset: str, dataset: DatasetEntry) -> Recipe:
    if preset == "paper":
        epochs = 50 if dataset.simple else 200
        return Recipe(epochs=epochs, batch_size=128, optimizer="sgd", learning_rate=0.05, schedule="step")
    if dataset.victim_epochs is not None:
        return Recipe(epochs=dataset.victim_epochs, batch_size=64)
    return Recipe(epochs=5 if preset == "quick" else 20, batch_size=128)


def _gentle(recipe: Recipe) -> Recipe:
    """The recipe for a network that begins from public weights and is trained whole."""
    return recipe.model_copy(update={"learning_rate": min(recipe.learning_rate, _FINE_TUNING_RATE)})


def _thief_recipe(preset: str, dataset: DatasetEntry) -> Recipe:
    if preset == "paper":
        epochs = 50 if dataset.simple else 100
        return Recipe(epochs=epochs, batch_size=128, optimizer="sgd", learning_rate=0.01, schedule="step")
    return Recipe(epochs=20 if preset == "quick" else 30, batch_size=64, learning_rate=2e-3)
