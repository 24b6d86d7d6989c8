"""ART estimators."""
