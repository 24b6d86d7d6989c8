"""Defences, laid out as `art.defences` is: trainers, postprocessors, and wrappers that need gradients."""
