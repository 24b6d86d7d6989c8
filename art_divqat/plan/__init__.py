"""Plan: configurations, presets, gate conditions and the cells of a run; no torch, no ART."""
