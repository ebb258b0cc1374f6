"""What all figures have in common: style, labels, headings, and files with equal bytes."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter

from harness.storage import files

INK, FAINT, STAMP = "#1c2024", "#5b646e", "#8a4b00"

STYLE: Mapping[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e3e6e8",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reports",
}

LABEL = 30
"""The longest line of a label, in letters; longer ones are broken."""

METADATA: Mapping[str, Mapping[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""No date and no version, which would change the bytes."""


@contextmanager
def in_style() -> Iterator[None]:
    """Draw in the style of the reports, whatever the user's settings of matplotlib are."""
    with (
        matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}),
        warnings.catch_warnings(),
    ):
        # The font may lack the script of a title: SVG keeps the text, PNG shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and SVG, with the path as the beginning of their names."""
    for kind, metadata in METADATA.items():
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=120, metadata=dict(metadata))
        files.write(path.with_name(f"{path.name}.{kind}"), content.getvalue())


def plain(text: str) -> str:
    """Return a text with dollar signs escaped, which would start a formula."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def broken(text: str, letters: int = LABEL) -> str:
    """Return a label broken into lines of at most this many letters."""
    return plain_lines(textwrap.wrap(text, letters))


def plain_lines(lines: Iterable[str]) -> str:
    """Return lines as one text that holds no formula."""
    return "\n".join(map(plain, lines))


def size(artist: Artist, figure: Figure) -> tuple[float, float]:
    """Return the width and height of an artist in inches."""
    extent = artist.get_window_extent(FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]  # matplotlib has no type here
    return extent.width / figure.dpi, extent.height / figure.dpi


def _heading(
    figure: Figure, name: str, title: str, stamp: str | None
) -> tuple[list[str], list[str]]:
    """Return the lines above a figure of this width: its title, and the stamp."""
    width = figure.get_figwidth()
    shown = textwrap.wrap(f"{title[0].upper()}{title[1:]}: {name}", max(int(width / 0.1), 20))
    return shown, textwrap.wrap(stamp or "", max(int(width / 0.078), 20))


def headline_height(figure: Figure, name: str, title: str, stamp: str | None) -> float:
    """Return the height of `headline` in inches."""
    shown, stamped = _heading(figure, name, title, stamp)
    return 0.12 + 0.17 * len(shown) + (0.05 + 0.13 * len(stamped) if stamped else 0)


def headline(figure: Figure, name: str, title: str, stamp: str | None) -> None:
    """Write the title and the stamp above a figure."""
    shown, stamped = _heading(figure, name, title, stamp)
    height = figure.get_figheight()
    top = 1 - 0.1 / height
    figure.text(0.01, top, plain_lines(shown), fontsize=10, weight="bold", va="top")
    top -= (0.17 * len(shown) + 0.05) / height
    look: dict[str, Any] = {"fontsize": 7.5, "color": STAMP, "weight": "bold", "va": "top"}
    figure.text(0.01, top, plain_lines(stamped), **look)


def frame_heat_map(
    figure: Figure, image: AxesImage, name: str, title: str, stamp: str | None
) -> None:
    """Put a heading above a heat map, its labels beside it, and a scale in percent to the right.

    Args:
        figure: a figure of the size of the heat map, which becomes larger.
        image: the heat map, whose axes have their labels.
        name: what is shown.
        title: what is shown of it.
        stamp: a warning below the title.
    """
    axes = image.axes
    axes.grid(visible=False)
    wide, down = figure.get_size_inches()
    left = 0.22 + max(size(label, figure)[0] for label in axes.get_yticklabels())
    width = left + wide + 1.0
    figure.set_figwidth(width)
    head = 0.12 + headline_height(figure, name, title, stamp)
    height = down + head + 0.6
    figure.set_figheight(height)
    headline(figure, name, title, stamp)
    axes.set_position((left / width, 0.6 / height, wide / width, down / height))
    bar = min(down, 2.0)
    figure.colorbar(
        image,
        cax=figure.add_axes(
            ((left + wide + 0.12) / width, (0.6 + down - bar) / height, 0.12 / width, bar / height)
        ),
        format=FuncFormatter(lambda share, _: f"{100 * share:g} %"),
    )
