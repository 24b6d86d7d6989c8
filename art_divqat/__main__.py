"""Run the command line as `python -m art_divqat`."""

from art_divqat.cli import main

if __name__ == "__main__":
    main()
