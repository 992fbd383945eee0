"""Pages of the paper's backbones, with empty figures, since drawing real ones takes seconds."""

from collections.abc import Iterator

import pytest
from matplotlib.figure import Figure

from engine.analysis.catalogue import FIGURES
from engine.report import page

from ...support.fake_results import papers_backbones


@pytest.fixture(scope="session", autouse=True)
def quick_figures() -> Iterator[None]:
    """Each figure is empty, but ``scaling`` has nothing to show."""
    empty = {name: lambda results: Figure(figsize=(1, 1)) for name in FIGURES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "FIGURES", empty | {"scaling": lambda results: None})
        yield


@pytest.fixture(scope="package", autouse=True)
def lineup() -> Iterator[None]:
    with papers_backbones():
        yield
