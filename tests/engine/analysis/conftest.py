"""Tables and figures of the paper's backbones."""

from collections.abc import Iterator

import pytest

from ...support.fake_results import papers_backbones


@pytest.fixture(scope="package", autouse=True)
def lineup() -> Iterator[None]:
    with papers_backbones():
        yield
