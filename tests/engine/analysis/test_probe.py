"""What a trained model shows: sessions against planted ones, dispatch by hand, experts against themes.

Shape suffixes as in the code: L items of a user, I items, E experts, D item width, S sessions.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from engine.analysis.probes import item_experts as dispatch_probe
from engine.analysis.probes import sessions as session_hopping
from engine.analysis.probes.item_experts import describe_codes, match
from engine.analysis.probes.probe import load_run, probe
from engine.common.errors import UserError
from engine.config.feature_map import build_feature_map
from engine.run.experiment import make_loaders

from ...support.helpers import build_model, codebooks, ragged_history, tiny_params

ORTHOGONAL = np.eye(4)
SCHEDULE = [(0, 10), (1, 12), (0, 9), (2, 11)]  # theme and length of each session
STARTS = [10, 22, 31]


def sequence(*sessions: tuple[int, int]) -> np.ndarray:
    """Item vectors of sessions of orthogonal themes."""
    return np.concatenate(
        [np.repeat(ORTHOGONAL[[theme]], count, axis=0) for theme, count in sessions]
    )


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """Parameters, loaders and model of a short training."""
    folder = tmp_path_factory.mktemp("trained")
    params = tiny_params(tiny_data, model_root=str(folder), verbose=0, epochs=1)
    loaders = make_loaders(params, build_feature_map(params), "cpu")
    model = build_model(params)
    model.fit(loaders["train"], validation_data=loaders["valid"], **params)
    return params, loaders, model


@pytest.fixture(scope="module")
def found(trained) -> dict[str, Any]:
    params, loaders, model = trained
    return probe(model, loaders, params)


def test_the_probe_changes_nothing_and_repeats_itself(trained, found: dict[str, Any]) -> None:
    params, loaders, model = trained
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict(keep_vars=False).items()}
    hidden = [(b.sum_EC.clone(), b.count_E.clone()) for b in codebooks(model)]  # not in the state
    torch.manual_seed(123)
    random = torch.get_rng_state()
    assert probe(model, loaders, params) == found
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    for codebook, (sum_EC, count_E) in zip(codebooks(model), hidden, strict=True):
        assert codebook.sum_EC.equal(sum_EC) and codebook.count_E.equal(count_E)
    assert torch.get_rng_state().equal(random)
    assert not any(module.training for module in model.modules())
    assert len(json.dumps(found, indent=2)) < 150_000


@pytest.mark.parametrize("name", ["TWIN_MoS", "TWIN_GShard", "TWIN_DSelectK", "TWIN_ExpertChoice"])
def test_shares_of_every_router_sum_to_one(tiny_data: Path, trained, name: str) -> None:
    params = tiny_params(tiny_data, name)
    result = probe(build_model(params), trained[1], params)
    assert list(result["dispatch"]) == (["item"] if name == "TWIN_MoS" else ["moe"])
    for branch in result["dispatch"].values():
        assert branch["experts"] == 5
        assert branch["most"]["appearances"] >= branch["least"]["appearances"] >= 5
        for mode in ("train", "eval"):
            for end in ("most", "least", "most_sent", "least_sent"):
                assert sum(branch[mode][end]) == pytest.approx(1, abs=1e-3), (mode, end)
    if name == "TWIN_DSelectK":  # in training every gate is open
        assert (
            branch["train"]["most_sent"] == [0.2] * 5 and branch["eval"]["most_sent"] != [0.2] * 5
        )


def test_mos_sends_an_item_to_one_expert_and_expert_choice_does_not(
    tiny_data: Path, trained, found: dict[str, Any]
) -> None:
    for mode in ("train", "eval"):
        item = found["dispatch"]["item"][mode]
        assert item["consistency"] == 1 and max(item["most"]) == max(item["least"]) == 1
        assert item["unrouted"] == 0
    params = tiny_params(tiny_data, "TWIN_ExpertChoice")
    model = build_model(params)
    torch.nn.init.normal_(model.branches["moe"].router.gate.weight)
    assert probe(model, trained[1], params)["dispatch"]["moe"]["eval"]["consistency"] < 1


def test_a_router_in_training_draws_by_the_seed_and_is_put_back(tiny_data: Path) -> None:
    branch = build_model(tiny_params(tiny_data, "TWIN_GShard")).branches["moe"].eval()
    history = ragged_history([30] * 20, 30, branch.router.gate.in_features, dtype=torch.float32)
    first, again, other = (
        dispatch_probe.gates(branch, [history], True, seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not branch.router.training
    assert not np.array_equal(first, dispatch_probe.gates(branch, [history], False))


def test_popularity_is_counted_as_by_hand(trained, found: dict[str, Any]) -> None:
    params, loaders, _ = trained
    samples, histories = loaders["test"].samples.resident, loaders["test"].histories
    count: dict[int, int] = {}
    for user in np.unique(samples["user_index"]):
        length = samples["seq_len"][samples["user_index"] == user].max()
        row = histories.batch(
            np.array([user]), np.array([length]), np.array([0]), params["max_len"]
        )[0]
        for item in row[0, :-1][row[0, :-1] > 0].tolist():
            count[item] = count.get(item, 0) + 1
    ends = found["dispatch"]["item"]
    assert ends["most"]["appearances"] == max(count.values()) == count[ends["most"]["item"]]
    assert ends["least"]["appearances"] == min(c for c in count.values() if c >= 5)
    assert found["about"]["appearances"] == sum(count.values())
    assert found["about"]["items"] == len(count)


def test_planted_themes_are_found_by_the_experts_and_sessions_by_their_borders(
    found: dict[str, Any],
) -> None:
    assert found["themes"]["kind"] == "planted theme" and found["themes"]["categories"] == 5
    assert found["themes"]["ami"] > 0.6 and abs(found["themes"]["ami_null"]) < 0.03
    assert found["themes"]["purity"] > 0.7 > found["themes"]["purity_null"]
    assert sum(code["items"] for code in found["themes"]["codes"]) == found["about"]["items"]
    for code in found["themes"]["codes"]:
        near = code["nearest"]
        assert len(near) == min(8, code["items"])
        assert near == sorted(near, key=lambda n: -n["cosine"])
    hopping = found["session_hopping"]
    assert hopping["planted_borders"]["recall"] > 0.85
    assert hopping["planted_borders"]["precision"] > 0.65
    real, shuffled = hopping["real"], hopping["shuffled"]
    assert shuffled["within"]["high"] < real["within"]["low"]
    assert real["adjacent"]["high"] < real["within"]["low"]


def test_examples_are_at_the_quantiles_and_hold_their_matrix(
    trained, found: dict[str, Any]
) -> None:
    examples = found["session_hopping"]["examples"]
    assert [example["quantile"] for example in examples] == [0.5, 0.75, 0.9]
    assert [e["score"] for e in examples] == sorted(e["score"] for e in examples)
    for example in examples:
        rows = [text.split() for text in example["similarity"]]
        assert [len(row) for row in rows] == list(range(1, len(example["experts"]) + 1))
        assert {row[-1] for row in rows} == {"100"}
        assert len(set(example["experts"])) > 1 and set(example["experts"]) <= set(range(5))


def test_a_vanilla_model_has_sessions_but_no_experts(tiny_data: Path, trained) -> None:
    params = tiny_params(tiny_data, "TWIN")
    result = probe(build_model(params), trained[1], params, max_users=20)
    assert result["about"]["users"] == 20
    assert result["dispatch"] == {} and result["themes"] is None
    assert result["session_hopping"]["planted_borders"]["tolerance"] == 2
    assert all(example["experts"] is None for example in result["session_hopping"]["examples"])


def test_names_stand_beside_the_numbers(trained, found: dict[str, Any], tmp_path: Path) -> None:
    params, loaders, model = trained
    code = found["themes"]["codes"][0]
    assert code["main_name"] is None
    first, second = (code["nearest"][i]["item"] for i in (0, 1))
    index = pl.read_parquet(params["item_info"])["item_index"][1:]
    named = index.to_frame().with_columns(
        name=pl.when(pl.col("item_index") == first).then(pl.lit("Alien")),
        category=pl.lit("Horror"),
    )
    named.write_parquet(tmp_path / "item_ids.parquet")
    known = probe(model, loaders, params | {"item_info": str(tmp_path / "item_info.parquet")})
    code = known["themes"]["codes"][0]
    assert [near["name"] for near in code["nearest"][:2]] == ["Alien", None]
    assert code["main_name"] == "Horror" and code["nearest"][1]["item"] == second


def test_a_checkpoint_gives_the_model_back(trained, found: dict[str, Any], tmp_path: Path) -> None:
    params, _, model = trained
    path = tmp_path / "weights.model"
    torch.save(model.state_dict(), path)
    assert probe(*load_run(params, path), params) == found
    with pytest.raises(UserError, match="no such checkpoint"):
        load_run(params, tmp_path / "missing.model")
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not weights of TWIN_MoS"):
        load_run(params, path)


# ---------------------------------------------------------------- sessions


def test_borders_are_where_orthogonal_themes_switch() -> None:
    x_LD = sequence(*SCHEDULE)
    threshold = session_hopping.shuffled_similarity([np.random.default_rng(0).permutation(x_LD)])
    assert 0 < threshold < 1
    assert session_hopping.borders(x_LD, threshold) == STARTS


def test_a_constant_history_is_one_session() -> None:
    x_LD = sequence((0, 40))
    threshold = session_hopping.shuffled_similarity([x_LD])
    assert session_hopping.borders(x_LD, threshold) == []
    statistics = session_hopping.user_statistics(x_LD, [])
    assert statistics["within"] == pytest.approx(1) and statistics["sessions"] == 1
    assert np.isnan(statistics["adjacent"]) and np.isnan(statistics["score"])


def test_statistics_of_a_history_that_can_be_counted_by_hand() -> None:
    """Sessions of themes 0, 1, 0, 2: of three pairs that are not adjacent, one has one theme."""
    found = session_hopping.user_statistics(sequence(*SCHEDULE), STARTS)
    assert found["within"] == pytest.approx(1) and found["adjacent"] == pytest.approx(0)
    assert found["distant"] == pytest.approx(1 / 3)  # 0-0 of 0-0, 1-2 and 0-2
    assert found["reappearing"] == pytest.approx(1 / 3)
    assert found["score"] == pytest.approx(0.5)  # the best earlier one: 1 and 0
    assert found["session_items"] == 10.5


def test_the_adjacent_session_is_no_reappearance() -> None:
    """Themes 0, 1, 1, cut into three: the third is like the second, and unlike the first."""
    found = session_hopping.user_statistics(sequence((0, 6), (1, 12)), [6, 12])
    assert found["reappearing"] == 0
    assert found["adjacent"] == pytest.approx(0.5) and found["score"] == pytest.approx(-0.5)


def test_a_shuffled_history_is_measured_with_the_bar_of_the_real_one() -> None:
    x_LD = sequence(*SCHEDULE)
    assert session_hopping.user_statistics(x_LD, STARTS, bar=-0.1)["reappearing"] == 1
    assert session_hopping.user_statistics(x_LD, STARTS, bar=1.1)["reappearing"] == 0
    noise_LD = np.random.default_rng(0).normal(size=(300, 4))
    found = session_hopping.measure([noise_LD] * 20, list(range(20)), seed=0)
    real, shuffled = (found[side]["reappearing"]["mean"] for side in ("real", "shuffled"))
    assert real == pytest.approx(shuffled, abs=0.1)  # without sessions there is nothing to see


def test_reappearance_is_told_from_chance_though_shuffled_histories_have_more_sessions() -> None:
    """Themes 0, 1, 0, 2, 1, 0: of ten pairs that are not adjacent four have one theme. Where no theme
    returns, none does."""
    rng = np.random.default_rng(0)

    def users(*themes: int) -> list[np.ndarray]:
        plain_LD = np.repeat(np.eye(6)[list(themes)], 16, axis=0)
        return [plain_LD - 1 / 6 + rng.normal(scale=0.3, size=plain_LD.shape) for _ in range(40)]

    for themes, low, high in (((0, 1, 0, 2, 1, 0), 0.1, 0.4), (range(6), 0, 0.02)):
        found = session_hopping.measure(users(*themes), list(range(40)), seed=0)
        assert found["shuffled"]["sessions"]["mean"] > found["real"]["sessions"]["mean"]
        assert low <= found["real"]["reappearing"]["mean"] <= high
        assert found["shuffled"]["reappearing"]["mean"] < 0.02


def test_similarities_of_sessions_are_means_over_pairs() -> None:
    x_LD = np.random.default_rng(1).normal(size=(9, 3))
    within_S, between_SS = session_hopping.session_similarities(
        session_hopping.similarities(x_LD), [4]
    )
    unit = x_LD / np.linalg.norm(x_LD, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(4) for j in range(4) if i != j]
    assert within_S[0] == pytest.approx(np.mean(pairs))
    assert between_SS[0, 1] == pytest.approx(np.mean(unit[:4] @ unit[4:].T))


@pytest.mark.parametrize(("planted", "share"), [([12, 50, 60], 1), ([13, 50, 60], 0)])
def test_agreement_counts_borders_near_each_other(
    monkeypatch: pytest.MonkeyPatch, planted: list[int], share: int
) -> None:
    monkeypatch.setattr(session_hopping, "borders", lambda x_LD, threshold: [10, 30])
    label_L = np.searchsorted(planted, np.arange(80), side="right")
    found = session_hopping.planted_agreement([np.zeros((80, 2))], [label_L], 0.0)
    expected = {"precision": share / 2, "recall": share / 3, "tolerance": 2}
    assert found == pytest.approx(expected)


# ---------------------------------------------------------------- themes


def test_a_perfect_assignment_scores_one_and_a_random_one_zero() -> None:
    label_I = np.repeat(np.arange(1, 6), 200)
    perfect = match((label_I + 2) % 5, label_I, seed=0)
    assert perfect["purity"] == 1 and perfect["ami"] == pytest.approx(1)
    chance = match(np.random.default_rng(0).integers(5, size=1000), label_I, seed=0)
    assert abs(chance["ami"]) < 0.01 and chance["purity"] < 0.27
    assert chance["purity"] == pytest.approx(chance["purity_null"], abs=0.02)


def test_items_without_a_category_or_an_expert_are_left_out() -> None:
    expert_I, label_I = np.array([0, 0, 1, 1, -1]), np.array([1, 0, 2, 2, 1])
    assert match(expert_I, label_I, seed=0)["items"] == 3


def test_a_code_is_described_by_its_own_items() -> None:
    """Item 11 lies on code 1, but another expert has it; code 2 has none."""
    codes_EC = np.eye(3)
    z_IC = codes_EC[[0, 0, 1, 1]] + np.array([[0], [0.5], [0.5], [0]]) * [0, 0, 1]
    expert_I, label_I = np.array([0, 0, 1, 0]), np.array([1, 0, 2, 2])
    first, second, empty = describe_codes(
        z_IC, codes_EC, expert_I, np.array([7, 8, 10, 11]), label_I
    )
    assert [near["item"] for near in first["nearest"]] == [7, 8, 11]
    assert (first["items"], first["main_category"], first["main_share"]) == (3, 1, 0.5)
    assert [near["item"] for near in second["nearest"]] == [10]
    assert empty == {"items": 0, "nearest": [], "main_category": None, "main_share": 0}
