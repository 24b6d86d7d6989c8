"""Data sets and query pools by name, split, checked and converted once to float32 NCHW in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "adapt": ["adapt_images"],
        "listing": ["Part", "PictureList"],
        "pools": ["QueryPool", "load_pool"],
        "raw": ["RawImages"],
        "sources": ["list_datasets", "load_raw"],
        "splits": ["Dataset", "load_dataset", "split_dataset"],
    },
)

if TYPE_CHECKING:
    from art_divqat.data.adapt import adapt_images as adapt_images
    from art_divqat.data.listing import Part as Part
    from art_divqat.data.listing import PictureList as PictureList
    from art_divqat.data.pools import QueryPool as QueryPool
    from art_divqat.data.pools import load_pool as load_pool
    from art_divqat.data.raw import RawImages as RawImages
    from art_divqat.data.sources import list_datasets as list_datasets
    from art_divqat.data.sources import load_raw as load_raw
    from art_divqat.data.splits import Dataset as Dataset
    from art_divqat.data.splits import load_dataset as load_dataset
    from art_divqat.data.splits import split_dataset as split_dataset
