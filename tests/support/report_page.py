"""What is in a report, and results that are not as a study left them."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="runs">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def rows(page: str) -> list[tuple[int, list[tuple[str, str]]]]:
    """The leaderboards: place in the embedded data, and (sorted by, text) of each cell."""
    found = re.findall(r'<tbody data-group="(\d+)"><tr>(.*?)</tr></tbody>', page, re.S)
    cell = re.compile(r'<td(?: class="n")?(?: data-value="([^"]*)")?>(.*?)</td>', re.S)
    return [(int(index), cell.findall(row)) for index, row in found]


def pieces(page: str) -> dict[str, list[str]]:
    """The paper's pieces and ours by title: what the page says of each data set, and where the piece is."""
    body = page.split('<table class="pieces">')[1].split("</table>")[0].split("<tbody>")[1]
    texts = [
        [re.sub(r"<[^>]+>", " ", cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.S)]
        for row in body.split("</tr>")[:-1]
    ]
    tidy = [[" ".join(unescape(text).split()) for text in row] for row in texts]
    return {title: rest for title, *rest in tidy}


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
