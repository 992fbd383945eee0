"""Scores of one user's candidates, as a server computes them, on data of MicroVideo1.7M_x2's shape."""

from argparse import Namespace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model_zoo.serving import export_program, serving_inputs

from ..predict.scorers import load_program
from .harness import Case, Report
from .inputs import RandomBatch, random_batch
from .model_cases import build

TOLERANCE = 1e-5


@torch.no_grad()
def serve(report: Report, args: Namespace) -> None:
    """The candidates of one user: the program of engine.export, and the model of training.

    The model of training reads the history once for each candidate, as one batch. The program reads it
    once for all. With --compile, a program of `engine.export --compile` is timed too. Scores are compared
    before anything is timed.
    """
    for name in args.models:
        batch, sample_N = _one_user(args), torch.arange(args.candidates)
        model = build(name, args, max_len=args.length)
        model.before_experts([batch], seed=0)
        model.eval()
        inputs = serving_inputs(batch, sample_N, model.context_features(batch[0]), args.length)
        program = export_program(model, batch, args.length)
        runs: dict[str, Any] = {"exported": program.module(check_guards=False)}
        if args.compile:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(args.folder / "compiled.pt2")
            )
            runs["compiled"] = load_program(args.folder)
        training = f"{name}, as in training"
        cases = [Case(training, partial(_score, model, batch))]
        for what, run in runs.items():
            report.agree(f"{name}, {what}", [run(*inputs)], [_score(model, batch)], TOLERANCE)
            # No FLOPs are counted within a compiled program, which has those of the exported one.
            floor = 0.0 if what == "exported" else None
            cases.append(Case(f"{name}, {what}", partial(run, *inputs), moved=floor))
        report.time(cases, args.candidates)
        for case in cases[1:]:
            report.compare(training, case.name)


def _one_user(args: Namespace) -> RandomBatch:
    """A batch of one user's candidates; the user has the longest history."""
    batch_dict, items, _ = random_batch(args.candidates, args.length, args.device)
    longest = int((items.index > 0).sum(1).argmax())
    items.index[:, :-1] = items.index[longest, :-1].clone()
    return batch_dict, items, (items.index[:, :-1] > 0).float()


def _score(model: Any, batch: RandomBatch) -> Tensor:
    return model(batch)["y_pred"][:, 0]
