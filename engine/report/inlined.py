"""What ``engine.analysis`` wrote, ready to be put into the page: tables and figures."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from markupsafe import Markup

from ..analysis.figures import FIGURES
from ..common.errors import UserError
from .pieces import PIECES, Piece

TAGS = {
    "table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "th", "td", "b", "strong",
    "i", "em", "u", "small", "sub", "sup", "span", "br", "code", "abbr", "ul", "ol", "li",
}  # fmt: skip
ATTRIBUTES = {
    "class", "colspan", "rowspan", "scope", "title", "style", "data-value", "data-best", "aria-label",
}  # fmt: skip


@dataclass(frozen=True)
class Fragment:
    """A table: the name of its file without the ending, and its content."""

    name: str
    html: Markup


@dataclass(frozen=True)
class Figure:
    """A figure, and its content as a URI, so that the ids of two SVGs cannot clash."""

    piece: Piece
    uri: str


def tables(folder: Path) -> list[Fragment]:
    """The fragments ``tables/*.html``, the paper's tables first; captions name them.

    That of tuning is left out: each data set shows its trials itself.

    Raises:
        UserError: one is more than a table with notes, or cannot be read.
    """
    paths = (path for path in folder.glob("tables/*.html") if path.stem != "tuning")
    order = sorted(paths, key=lambda path: (not path.name.startswith("table"), path.name))
    return [Fragment(path.stem, Markup(_checked(path))) for path in order]


def figures(folder: Path) -> list[Figure]:
    """The figures of a data set's folder, in the order of ``PIECES``."""
    return [
        Figure(piece, "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode())
        for piece in PIECES
        if piece.name in FIGURES and (path := folder / piece.file).is_file()
    ]


def _checked(path: Path) -> str:
    """The fragment, which goes into the page as it is."""
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); make it again") from None
    checker = _Checker()
    checker.feed(text)
    checker.close()
    if checker.foreign or not text.startswith("<table"):
        what = f", found {checker.foreign}" if checker.foreign else ""
        raise UserError(
            f"{path}: a fragment must be a <table> and notes{what}; python -m engine.analysis makes them"
        )
    return text


class _Checker(HTMLParser):
    """Notes the first tag or attribute that a table with notes does not have."""

    foreign = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs if name not in ATTRIBUTES]
        if not self.foreign and (tag not in TAGS or names):
            self.foreign = " ".join(["<" + tag, *names]) + ">"
