"""Statistics over seeds, against formulas, definitions and known examples."""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy.stats import t as student

from engine.analysis.tables.comparison import Group, compare, holm, mean_std, paired, ranks


def random_pair(n: int, seed: int = 0) -> tuple[dict[int, float], dict[int, float]]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.7, 0.01, n)
    ours, theirs = shared + rng.normal(0.002, 0.001, n), shared + rng.normal(0, 0.001, n)
    return dict(enumerate(ours.tolist())), dict(enumerate(theirs.tolist()))


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_a_paired_comparison_is_the_t_formula(n: int) -> None:
    ours, theirs = random_pair(n)
    found = paired(ours, theirs)
    d = np.array([ours[i] - theirs[i] for i in range(n)])
    error = d.std(ddof=1) / math.sqrt(n)
    half = student.ppf(0.975, n - 1) * error
    assert found.pairs == n
    assert found.gain == pytest.approx(d.mean(), rel=1e-12)
    assert found.low == pytest.approx(d.mean() - half, rel=1e-9)
    assert found.high == pytest.approx(d.mean() + half, rel=1e-9)
    assert found.p == pytest.approx(2 * student.sf(abs(d.mean() / error), n - 1), rel=1e-9)


def test_a_known_example_of_the_t_test() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641 with 2 degrees of freedom.
    found = paired({1: 2.0, 2: 4.0, 3: 6.0}, {1: 1.0, 2: 2.0, 3: 3.0})
    assert found.gain == pytest.approx(2)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_the_order_of_seeds_does_not_matter_and_their_pairing_does() -> None:
    ours, theirs = random_pair(5)
    found = paired(ours, theirs)
    turned = paired(dict(reversed(ours.items())), theirs)
    assert turned == found
    mixed = paired(dict(zip(ours, [*list(ours.values())[1:], ours[0]], strict=True)), theirs)
    assert mixed.gain == pytest.approx(found.gain)
    assert mixed.p > found.p * 10


def test_only_common_seeds_count() -> None:
    ours, theirs = random_pair(6)
    fewer = {seed: ours[seed] for seed in (0, 2, 5)}
    found = paired(fewer, theirs)
    assert found == paired(fewer, {seed: theirs[seed] for seed in (0, 2, 5)})
    assert found.pairs == 3
    assert paired({1: 0.5}, {2: 0.5}) is None


def test_swapping_the_models_turns_the_sign() -> None:
    ours, theirs = random_pair(5)
    found, swapped = paired(ours, theirs), paired(theirs, ours)
    assert swapped.gain == pytest.approx(-found.gain)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    assert swapped.p == pytest.approx(found.p)


def test_one_pair_has_no_interval() -> None:
    found = paired({7: 0.75}, {7: 0.5, 8: 0.1})
    assert (found.gain, found.low, found.high, found.p, found.pairs) == (
        0.25,
        None,
        None,
        None,
        1,
    )


@pytest.mark.parametrize(("step", "p"), [(0.01, 0.0), (-0.01, 0.0), (0.0, 1.0)])
def test_equal_differences_have_a_point_as_interval_and_give_no_warning(
    step: float, p: float
) -> None:
    theirs = {1: 0.70, 2: 0.71, 3: 0.73, 4: 0.745}
    ours = {seed: value + step for seed, value in theirs.items()}  # equal up to rounding
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired(ours, theirs)
    assert found.gain == pytest.approx(step)
    assert found.low == found.high == found.gain
    assert found.p == p


def test_holm_on_a_known_example() -> None:
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1 which may not fall below their predecessors.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, pytest.approx(0.02), None, pytest.approx(0.04)]


def test_holm_rejects_what_its_definition_rejects() -> None:
    """Step down: at level a, reject the k-th smallest while it is at most a / (m - k + 1)."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        p = rng.uniform(0, 0.2, size=5).tolist()
        corrected = holm(p)
        for level in (0.01, 0.05, 0.1, 0.3, 0.7):
            rejected = set()
            for k, i in enumerate(sorted(range(5), key=p.__getitem__)):
                if p[i] > level / (5 - k):
                    break
                rejected.add(i)
            assert {i for i in range(5) if corrected[i] <= level} == rejected


def test_holm_is_the_same_in_every_order() -> None:
    p = [0.001, 0.03, 0.02, 0.4]
    expected = dict(zip(p, holm(p), strict=True))
    for order in itertools.permutations(p):
        assert holm(list(order)) == [expected[value] for value in order]


def test_mean_and_sample_deviation() -> None:
    assert mean_std([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, math.sqrt(14 / 3)))
    assert mean_std([0.7]) == (0.7, None)


def test_ties_share_the_smallest_rank() -> None:
    assert ranks([0.7, 0.9, 0.7, 0.8, 0.6]) == [3, 1, 3, 2, 5]
    assert ranks([]) == []


def steady(level: float, noise: float, seed: int) -> dict[int, float]:
    shared = np.random.default_rng(0).normal(0, 0.01, 5)
    own = np.random.default_rng(seed).normal(0, noise, 5)
    return dict(enumerate((level + shared + own - own.mean()).tolist()))


def test_marks_need_significance() -> None:
    groups = [Group(("a", "b", "c"), ("c",))]
    values = {"a": steady(0.72, 1e-4, 1), "b": steady(0.71, 1e-4, 2), "c": steady(0.70, 1e-4, 3)}
    clear = compare(groups, values)
    assert [clear[name].mark for name in "abc"] == ["best", "second", ""]
    values["a"] = steady(0.7101, 5e-3, 1)  # ahead of b by chance only
    close = compare(groups, values)
    assert [close[name].rank for name in "abc"] == [1, 2, 3]
    assert [close[name].mark for name in "abc"] == ["", "second", ""]


def test_marks_of_all_groups_are_one_family() -> None:
    """A difference that is significant alone is not among many others that are not."""
    pair = {"a": dict(enumerate([0.72, 0.73, 0.725])), "b": dict(enumerate([0.71, 0.718, 0.7185]))}
    alone = compare([Group(("a", "b"), ("b",))], pair)
    assert 0.01 < alone["a"].p < 0.05
    assert alone["a"].mark == "best"
    others = {
        f"{side}{i}": steady(0.7, 0.01, 10 * i + (side == "x")) for i in range(5) for side in "xy"
    }
    groups = [Group(("a", "b"), ("b",)), *(Group((f"x{i}", f"y{i}"), (f"y{i}",)) for i in range(5))]
    among = compare(groups, pair | others)
    assert among["a"].mark == ""
    assert among["a"].p == pytest.approx(6 * alone["a"].p)


def test_the_reference_is_the_best_of_the_candidates() -> None:
    values = {"a": steady(0.72, 1e-4, 1), "b": steady(0.70, 1e-4, 2), "c": steady(0.71, 1e-4, 3)}
    found = compare([Group(("a", "b", "c"), ("b", "c"))], values)
    assert found["a"].reference == "c"
    assert found["a"][4:8] == paired(values["a"], values["c"])[:4]
    assert found["b"].gain is None
    assert found["c"].gain is None


def test_no_mark_where_the_common_seeds_say_the_opposite() -> None:
    worse = {1: 0.701, 2: 0.702, 3: 0.7031, 4: 0.9}  # ahead by mean only through a seed of its own
    better = {1: 0.711, 2: 0.712, 3: 0.713}
    found = compare([Group(("a", "b"), ("b",))], {"a": worse, "b": better})
    assert found["a"].mean > found["b"].mean
    assert (found["a"].rank, found["a"].gain < 0, found["a"].p < 0.05) == (
        None,
        True,
        True,
    )
    assert found["a"].mark == ""
