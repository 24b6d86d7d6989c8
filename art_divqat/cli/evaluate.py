"""`art-divqat evaluate`: steal victims, with and without defences, and report the results."""

from __future__ import annotations

from art_divqat.cli import common, options


def evaluate(
    dataset: options.Dataset = None,
    victims: options.Victims = None,
    attacks: options.Attacks = None,
    defences: options.Defences = None,
    answers: options.Answers = None,
    budgets: options.Budgets = None,
    query_pool: options.QueryPool = None,
    attacker_images: options.AttackerImages = None,
    attacker_labels: options.AttackerLabels = None,
    seeds: options.Seeds = None,
    max_seeds: options.MaxSeeds = None,
    max_minutes: options.MaxMinutes = None,
    model: options.Model = None,
    weights: options.Weights = None,
    training: options.Training = None,
    thief_model: options.ThiefModel = None,
    thief_weights: options.ThiefWeights = None,
    thief_training: options.ThiefTraining = None,
    epsilon: options.Epsilon = None,
    preset: options.Preset = None,
    image_size: options.ImageSize = None,
    image_channels: options.ImageChannels = None,
    image_fit: options.ImageFit = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    download: options.Download = None,
    repeat_queries: options.RepeatQueries = None,
    device: options.Device = None,
    jobs: options.Jobs = None,
    threads: options.Threads = None,
    executor: options.Executor = None,
    address: options.Address = None,
    gpus_per_cell: options.GpusPerCell = None,
    victim_store: options.Shared = None,
    output: options.Output = None,
    fail_on: options.FailOn = None,
    config: options.Config = None,
    no_baseline: options.NoBaseline = False,
    trust_code: options.TrustCode = False,
    dry_run: options.DryRun = False,
    retrain: options.Retrain = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    json_output: options.JsonOutput = False,
) -> None:
    """Steal victims, measure the copies, and write a report.

    The default steals an ordinary classifier of handwritten digits; with
    --victim robust also an adversarially trained one. Everything is kept in the
    run folder, and the same command goes on where it stopped.
    """
    requested = common.configuration(config, {**locals(), "baseline": False if no_baseline else None})
    common.run(requested, output, retrain=retrain, quiet=quiet, json_output=json_output, dry_run=dry_run)
