"""ART trainers."""
