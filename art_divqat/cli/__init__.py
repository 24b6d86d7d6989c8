"""Command line: parse options, call `audit` and `report`, print. The only importer of Typer."""

from art_divqat.cli.app import main

__all__ = ["main"]
