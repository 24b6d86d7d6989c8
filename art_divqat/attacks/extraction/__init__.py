"""ART extraction attacks."""
