"""What DivQAT does and does not stop, measured: `python -m evaluations.studies.divqat.run --help`."""
