"""What DivQAT does and does not stop, measured: `python -m evaluations.divqat.run --help`."""
