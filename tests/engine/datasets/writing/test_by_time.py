"""Moments at places of a log in order, against sorting all of it."""

import numpy as np
import polars as pl
import pytest

from engine.datasets.writing import by_time


@pytest.mark.parametrize("slices", [1, 40, 10**6])
@pytest.mark.parametrize("least", [-(10**18), -3, 0])
@pytest.mark.parametrize("span", [1, 2, 100, 10**9, 10**18, 1e-3, 1e300])
def test_times_are_found_without_sorting_all(
    monkeypatch: pytest.MonkeyPatch, least: int, span: float, slices: int
) -> None:
    monkeypatch.setattr(by_time, "SAMPLE", 2)
    monkeypatch.setattr(by_time, "SLICE", slices)
    rng = np.random.default_rng(0)
    time = (
        rng.random(300) ** 9 * span + least
        if isinstance(span, float)
        else rng.integers(span, size=300) + least
    )
    time[:50] = time[50]
    places = [0, 1, 60, 150, 298, 299]
    found = by_time.times_at(pl.LazyFrame({"time": time}), places)
    assert found == np.sort(time)[places].tolist()


def test_slices_are_in_order_and_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_time, "SAMPLE", 10)
    monkeypatch.setattr(by_time, "SLICE", 500)
    time = (np.random.default_rng(1).normal(size=10_000) * 1e9).astype(int)
    frame = pl.LazyFrame({"time": time})
    slices = frame.select(by_time.slice_of(frame)).collect().to_series().to_numpy()
    order = np.argsort(time)
    assert (np.diff(slices[order]) >= 0).all()
    sizes = np.bincount(slices)
    assert sizes.min() > 250 and sizes.max() < 1000
