"""Reports: turn results into files; never imports torch or ART."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "rating": ["Thresholds", "rating_sentence"],
        "files": ["FORMATS", "render", "render_json", "write_report"],
        "findings": ["finding"],
        "html": ["render_html"],
        "markdown": ["render_markdown"],
        "tables": ["summary_table"],
    },
)

if TYPE_CHECKING:
    from .files import FORMATS as FORMATS
    from .files import render as render
    from .files import render_json as render_json
    from .files import write_report as write_report
    from .findings import finding as finding
    from .html import render_html as render_html
    from .markdown import render_markdown as render_markdown
    from .rating import Thresholds as Thresholds
    from .rating import rating_sentence as rating_sentence
    from .tables import summary_table as summary_table
