"""Attacks, laid out as `art.attacks` is."""
