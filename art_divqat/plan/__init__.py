"""What is asked: configurations, presets and the plan of cells; no torch, no ART."""
