"""Link the packages of other environments into the one that runs this, but for this project and what it has itself.

An environment for one purpose gets by with a few packages of its own, and torch need not be installed again. What is
installed elsewhere of this project, as links to the checkout, stays out.
"""

import re
import sys
import sysconfig
from pathlib import Path


def project(path: Path) -> str:
    """The name of a package or of what describes it: `certifi` for certifi-2026.1.1.dist-info."""
    return re.sub(r"[-_.]+", "_", re.sub(r"-[^-]*\.(dist|egg)-info$", ".dist-info", path.name)).lower()


def main(folders: list[str]) -> None:
    own = Path(sysconfig.get_path("purelib"))
    there = {project(path) for path in own.iterdir()}
    for path in (path for folder in folders for path in Path(folder).iterdir()):
        if path.suffix != ".pth" and "art_divqat" not in path.name and project(path) not in there:
            (own / path.name).symlink_to(path)


main(sys.argv[1:])
