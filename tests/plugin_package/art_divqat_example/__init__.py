"""One of each kind of plug-in of art-divqat, for `docs/add-your-own.md` and its tests."""
