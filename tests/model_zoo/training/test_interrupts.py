"""A signal ends training after a step, and a resume goes on from there, to the last bit."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model_zoo.sequence_model import SequenceModel
from model_zoo.training import sparse_embedding
from model_zoo.training.interrupts import ENDING, Interrupts
from model_zoo.training.loop import Trainer
from model_zoo.training.steps import Stepper

from ...support.helpers import build_model, loader, tiny_params

DROPOUT = {"attention_dropout": 0.2, "net_dropout": 0.2}
# All that a state within an epoch has to hold: stages, batch norm, groups of batches, missed steps
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "TWIN_MoS": ("TWIN_MoS", 13, DROPOUT | {"router_topk": 2, "batch_norm": True}),
    "groups of batches": ("TWIN", 4, DROPOUT | {"accumulation_steps": 3}),
    "sparse_embedding": ("SDIM", 9, {"sparse_embedding": True}),
    "evaluations": ("TWIN", 4, DROPOUT | {"eval_steps": 3}),
}


def fit(model: SequenceModel, params: dict[str, Any], state: Path | None = None) -> None:
    train, valid = loader(params, shuffle=True, seed=5), loader(params, "valid")
    model.fit(train, valid, epochs=1.5, seed=5, resume_file=str(state) if state else None)


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, at: int) -> None:
    """Send Ctrl-C at a call of a method, counted from 1."""
    real: Callable[..., Any] = getattr(owner, method)
    calls = 0

    def call(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(owner, method, call)


@pytest.mark.parametrize("name", CASES)
def test_a_resume_within_an_epoch_gives_the_same_numbers(
    name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undisturbed run saves no state at all, so saving changes nothing either."""
    monkeypatch.setattr(sparse_embedding, "SMALL_TABLE", 0)
    model, step, changes = CASES[name]
    params = tiny_params(tiny_data, model, model_root=str(tmp_path), verbose=0, max_len=20)
    params |= changes
    whole = build_model(params)
    fit(whole, params)
    params["model_id"], state = "stopped", tmp_path / "state"
    for at, seed in ((step, 0), (2, 99)):  # the second stop is just behind the first
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, Stepper, "step", at)
            fit(build_model(params, seed), params, state)
        saved = torch.load(state, weights_only=True)["progress"]
        assert saved["step"] > saved["evaluated"] or name == "evaluations"
    resumed = build_model(params, seed=99)
    fit(resumed, params, state)
    same_weights(whole, resumed)
    for log in ("stage_start", "stage_log"):
        pairs = zip(getattr(whole, log), getattr(resumed, log), strict=True)
        assert all(a[key] == b[key] for a, b in pairs for key in a if key not in TIMES)


TIMES = ("samples_per_s", "valid_seconds")


def same_weights(a: SequenceModel, b: SequenceModel) -> None:
    weights = b.state_dict()
    assert all(value.equal(weights[name]) for name, value in a.state_dict().items())


def test_a_signal_in_an_evaluation_ends_it_and_the_resume_repeats_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tiny_params(tiny_data, "TWIN", model_root=str(tmp_path), verbose=0) | DROPOUT
    whole = build_model(params)
    fit(whole, params)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, Trainer, "_save_if_due", len(loader(params, "valid")) + 9)
        fit(build_model(params), params, tmp_path / "state")
    resumed = build_model(params, seed=99)
    fit(resumed, params, tmp_path / "state")
    same_weights(whole, resumed)
    assert [e["epoch"] for e in resumed.stage_log] == [e["epoch"] for e in whole.stage_log]


def test_states_follow_the_clock(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is dear to save is saved less often: a hundredth of the time at most."""
    params = tiny_params(tiny_data, "TWIN", model_root=str(tmp_path), verbose=0)
    model, now, steps = build_model(params), 0.0, []

    def saved_slowly(state: dict[str, Any], path: str) -> None:
        nonlocal now
        steps.append(state["progress"]["step"])
        now += cost

    def step(*args: Any) -> torch.Tensor:
        nonlocal now
        now += 60.0
        return real(*args)

    real = Stepper.step
    monkeypatch.setattr(Stepper, "step", step)
    monkeypatch.setattr("model_zoo.training.loop.save_state", saved_slowly)
    monkeypatch.setattr("model_zoo.training.loop.time.monotonic", lambda: now)
    data = loader(params), loader(params, "valid")
    for cost, expected in ((0.0, {0, 2, 4, 6, 8}), (2.0, {0, 4, 8})):  # noqa: B007
        steps.clear()
        model.fit(*data, epochs=1, checkpoint_minutes=2.0, resume_file=str(tmp_path / "state"))
        assert set(steps) == expected


# ---------------------------------------------------------------- signals


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that reach the process, which would otherwise end it."""
    found: list[int] = []
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, lambda number, _: found.append(number))
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_acts_behind_the_block(number: int, heard: list[int]) -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(number)
        assert interrupts.noted == number and not heard
    assert heard == [number]


def test_a_signal_that_was_ignored_stays_ignored(heard: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGHUP)
    assert interrupts.noted is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_second_ctrl_c_acts_at_once(heard: list[int]) -> None:
    with Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert not heard
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    heard.clear()
    with Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]


def test_another_thread_than_the_main_one_can_train() -> None:
    found: list[Interrupts] = []

    def enter() -> None:
        with Interrupts() as interrupts:
            found.append(interrupts)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found[0].noted is None
