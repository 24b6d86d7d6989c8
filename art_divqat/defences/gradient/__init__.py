"""Defences that need the input and a surrogate network: ART classifiers that wrap an ART classifier."""
