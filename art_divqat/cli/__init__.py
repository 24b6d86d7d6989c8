"""The command line: parses, calls `audit` and `report`, prints. The only importer of Typer."""

from art_divqat.cli.app import main

__all__ = ["main"]
