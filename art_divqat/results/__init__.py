"""The record of a run and what follows from it: journal, results, comparisons, flags and the gate; no torch, no ART."""
