"""Results: the journal of a run, and the summaries, comparisons, flags and gate made from it; no torch, no ART."""
