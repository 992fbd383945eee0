"""The training loop: stages, early stopping, best checkpoint, resume, and a guard against NaN."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..batch import Batch, Loader
from ..moe.stages import Stage, StageName
from .optimizer import add_regularizer_gradient, build_optimizer, clip_gradients, frozen_modules
from .routing_report import branch_codes, code_movement, log_report, routing_report
from .state_files import TrainingError, load_state, save_atomically
from .trainable import Trainable

ROUTING_BATCHES = 20  # of the validation data, spread over it, for the report of each evaluation
MIN_DELTA = 1e-6  # the least gain that counts as an improvement, as in FuxiCTR


def fit(
    model: Trainable,
    train_loader: Loader,
    valid_loader: Loader,
    *,
    epochs: float = 1,
    max_gradient_norm: float = 10.0,
    seed: int = 2024,
    resume_file: str | None = None,
    on_evaluation: Callable[[list[dict[str, Any]]], None] | None = None,
) -> None:
    """Train a model in its stages and leave it with its best weights.

    Every stage has an optimizer of its own and stops early by the monitor. It ends with the best
    weights that were evaluated: those it began with, or those of a later evaluation. So no stage
    ends worse than it began, and the last one's weights are the result. Patience and the learning
    rate do not look at the start: they compare evaluations after training only. The order of
    samples, dropout and k-means follow ``seed`` alone.

    Args:
        model: knows its stages, monitor, patience and checkpoint.
        train_loader: training batches; its ``epoch`` is set to the number of the epoch.
        valid_loader: validation batches.
        epochs: the most epochs of the joint stage; may be a fraction.
        max_gradient_norm: gradients are clipped to this norm.
        seed: of everything random.
        resume_file: the whole state is written here when a stage starts and after each epoch. If
            the file exists, training goes on from it, to the same numbers. The caller removes it
            after it has saved what it measures.
        on_evaluation: called with ``model.stage_log`` after each evaluation.

    ``model.stage_log`` gets one entry per evaluation after training: stage, epoch, loss, metrics,
    speed, and routing with the movement of the codes since the evaluation before, or since the stage
    began. ``model.stage_start`` gets one entry per stage: the metrics of the weights it began with.

    Raises:
        TrainingError: the loss or a metric is NaN or infinite, or a file cannot be written; the best
            checkpoint is untouched.
    """
    trainer = Trainer(
        model, train_loader, valid_loader, max_gradient_norm, seed, resume_file, on_evaluation
    )
    with logging_redirect_tqdm():  # log lines go above the progress bar, not through it
        trainer.run(model.stages(epochs))


@dataclass
class Trainer:
    """The state of a training run; see ``fit``."""

    model: Trainable
    train_loader: Loader
    valid_loader: Loader
    max_gradient_norm: float
    seed: int
    resume_file: str | None = None
    on_evaluation: Callable[[list[dict[str, Any]]], None] | None = None

    def __post_init__(self) -> None:
        self.stage_index = 0
        self.epochs_seen = 0  # of all stages: it decides the order of samples
        self.codes: dict[str, torch.Tensor] = {}  # of each branch, at the last evaluation
        self.model.stage_log, self.model.stage_start = [], []
        # Beside the checkpoint until an evaluation after training: a run that fails before that
        # leaves the checkpoint of an earlier run as it is.
        self.start_weights = Path(f"{self.model.checkpoint}.start")
        self.start_weights.parent.mkdir(parents=True, exist_ok=True)

    def run(self, stages: list[Stage]) -> None:
        """Run all stages, from the start or from a saved state."""
        torch.manual_seed(self.seed)
        saved = self._load_state()
        first_with_experts = [stage.name != StageName.BACKBONE for stage in stages].index(True)
        while self.stage_index < len(stages):
            if saved is None and self.stage_index == first_with_experts:
                self.train_loader.epoch = 0
                self.model.before_experts(self.train_loader, self.seed)
            self.run_stage(stages[self.stage_index], saved)
            saved = None
            self.stage_index += 1

    # ---------------------------------------------------------------- one stage

    def run_stage(self, stage: Stage, saved: dict[str, Any] | None) -> None:
        """Train one stage, from its start or from a saved state of it, and load its best weights."""
        model = self.model
        model.enter(stage.name)
        with frozen_modules(model, stage.name) as self.frozen:
            self.optimizer = build_optimizer(model)
            if saved is None:
                logging.info(
                    f"******** Stage {stage.name}: at most {stage.epochs:g} epochs ********"
                )
                done = 0.0
                self._start(stage)
                self._save_state(done)
            else:
                done = self._restore(saved)
                logging.info(f"******** Stage {stage.name}: resumed after {done:g} epochs ********")
            if not done and math.isfinite(self.best):
                save_atomically(model.state_dict(), self.start_weights)
            try:
                while done < stage.epochs and self.bad_evaluations < model.early_stop_patience:
                    part = min(1.0, stage.epochs - done)
                    self.train_epoch(stage, done, part)
                    done += part
                    self.epochs_seen += 1
                    self._save_state(done)
            finally:
                self.start_weights.unlink(missing_ok=True)
        model.zero_grad()
        model.forget_observed()  # of a group of batches that early stopping cut short
        model.load_weights(model.checkpoint)

    def _start(self, stage: Stage) -> None:
        """Evaluate the weights that a stage begins with; without a finite monitor they cannot win."""
        model, start = self.model, time.perf_counter()
        self.best = self.best_trained = -math.inf
        self.bad_evaluations = 0
        self.codes = branch_codes(model)
        metrics: dict[str, float] = {}
        try:
            metrics = model.evaluate(self.valid_loader)
            score = model.monitored(metrics)
        except ValueError as error:
            logging.info(f"{stage.name} start: cannot be evaluated ({error})")
            score = math.nan
        if candidate := math.isfinite(score):
            self.best = score
        model.stage_start.append(
            dict(
                stage=stage.name.value,
                **(metrics if candidate else {}),
                best=candidate,
                valid_seconds=time.perf_counter() - start,
            )
        )

    def train_epoch(self, stage: Stage, done: float, part: float) -> None:
        """Train ``part`` of an epoch (1 is all of it), and evaluate at its end."""
        model, loader = self.model, self.train_loader
        loader.epoch = self.epochs_seen
        steps = math.ceil(part * len(loader))
        every = model.eval_steps or steps
        total_loss: torch.Tensor | float = 0.0
        since, samples, start = 0, 0, time.perf_counter()
        self._set_train_mode()
        with tqdm(
            total=steps,
            desc=f"{stage.name} {done + part:g}/{stage.epochs:g}",
            unit="batch",
            disable=not model.verbose,
            leave=False,
            file=sys.stdout,
            mininterval=0.1 if sys.stdout.isatty() else 30,  # a log file gets a line now and then
        ) as bar:
            for step, batch in enumerate(islice(loader, steps), start=1):
                total_loss = total_loss + self.train_step(batch, step, steps)
                since, samples = since + 1, samples + len(batch[2])
                bar.update()
                evaluates = step % every == 0 or step == steps
                if step % 20 == 0 or evaluates:  # reading the loss waits for the device
                    loss = self._finite_loss(total_loss / since, stage, step)
                    rate = samples / (time.perf_counter() - start)
                    bar.set_postfix(loss=f"{loss:.4f}", samples_per_s=f"{rate:,.0f}", refresh=False)
                if evaluates:
                    self.evaluate(stage, done + part * step / steps, loss, rate)
                    total_loss, since, samples, start = 0.0, 0, 0, time.perf_counter()
                    self._set_train_mode()
                    if self.bad_evaluations >= model.early_stop_patience:
                        break

    def train_step(self, batch: Batch, step: int, steps: int) -> torch.Tensor:
        """Run forward and backward, and an optimiser step at the end of each group of batches."""
        model, group = self.model, self.model.accumulation_steps
        loss = model.add_loss(model(batch), model.get_labels(batch))
        last_group = step > steps - steps % group
        if loss.requires_grad:  # not where only experts train and no sample has a history
            (loss / (steps % group if last_group else group)).backward()
        if step % group == 0 or step == steps:
            add_regularizer_gradient(model)
            clip_gradients(self.optimizer.param_groups[0]["params"], self.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            model.after_step()
        return loss.detach()

    def evaluate(self, stage: Stage, epoch: float, loss: float, samples_per_s: float) -> None:
        """Validate, log, keep the best weights, and lower the learning rate on a plateau."""
        model = self.model
        start = time.perf_counter()
        try:
            metrics = model.evaluate(self.valid_loader)
        except ValueError as error:
            raise TrainingError(
                f"validation in stage {stage.name}, epoch {epoch:g}: {error}"
            ) from None
        score = model.monitored(metrics)
        if not math.isfinite(score):
            raise TrainingError(f"the monitor is {score} in stage {stage.name}, epoch {epoch:g}")
        improved = score > self.best + MIN_DELTA
        gained = score > self.best_trained + MIN_DELTA
        routing = {}
        if model.branches and stage.name != StageName.BACKBONE:
            every = -(-len(self.valid_loader) // ROUTING_BATCHES)
            routing = routing_report(model, islice(self.valid_loader, 0, None, every))
            log_report(routing)
            before, self.codes = self.codes, branch_codes(model)
            for name, branch in routing.items():
                branch["code_movement"] = code_movement(before.get(name), self.codes.get(name))
        model.stage_log.append(
            dict(
                stage=stage.name.value,
                epoch=round(epoch, 4),
                train_loss=loss,
                **metrics,
                best=improved,
                learning_rate=self.optimizer.param_groups[0]["lr"],
                samples_per_s=samples_per_s,
                valid_seconds=time.perf_counter() - start,
                routing=routing,
            )
        )
        logging.info(
            f"{stage.name} epoch {epoch:g}: train loss {loss:.6f}, {samples_per_s:,.0f} samples/s"
            + (", best so far" if improved else ", no improvement")
        )
        if self.on_evaluation is not None:
            self.on_evaluation(model.stage_log)
        if improved:
            self.best = score
            save_atomically(model.state_dict(), model.checkpoint)
            self.start_weights.unlink(missing_ok=True)
        elif self.start_weights.exists():  # nothing was better so far
            self.start_weights.replace(model.checkpoint)
        if gained:
            self.best_trained, self.bad_evaluations = score, 0
            return
        self.bad_evaluations += 1
        if model.reduce_lr_on_plateau:
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] * 0.1, 1e-6)

    def _set_train_mode(self) -> None:
        """Set training mode, except for frozen modules: their batch-norm statistics stand still."""
        self.model.train()
        for module in self.frozen:
            module.eval()

    def _finite_loss(self, loss: torch.Tensor | float, stage: Stage, step: int) -> float:
        """A mean loss as a number; a TrainingError if it is NaN or infinite."""
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingError(
                f"the training loss became {value} in stage {stage.name}, at or before step {step} "
                f"of the epoch; lower learning_rate ({self.model.learning_rate:g}) or "
                f"max_gradient_norm ({self.max_gradient_norm:g}). "
                "The last good checkpoint is kept"
            )
        return value

    # ---------------------------------------------------------------- resume

    def _save_state(self, done: float) -> None:
        """Write all that the rest of the run depends on, after ``done`` epochs of the stage."""
        if self.resume_file is None:
            return
        state = dict(
            stage_index=self.stage_index,
            epochs_seen=self.epochs_seen,
            done=done,
            best=self.best,
            best_trained=self.best_trained,
            bad_evaluations=self.bad_evaluations,
            stage_log=self.model.stage_log,
            stage_start=self.model.stage_start,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            codes=self.codes,
            rng=torch.get_rng_state(),
            cuda_rng=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        )
        save_atomically(state, self.resume_file)

    def _load_state(self) -> dict[str, Any] | None:
        """The saved state of a stage, if there is one to go on with."""
        saved = load_state(self.resume_file) if self.resume_file is not None else None
        if saved is None:
            return None
        self.stage_index = saved["stage_index"]
        self.epochs_seen = saved["epochs_seen"]
        self.model.stage_log = saved["stage_log"]
        if "stage_start" in saved:
            self.model.stage_start = saved["stage_start"]
        elif saved["done"] == 0:  # earlier versions wrote this between two stages
            self._restore_model(saved)
            return None
        return saved

    def _restore(self, saved: dict[str, Any]) -> float:
        """Take the state of a stage from a file; gives the epochs that are done."""
        self._restore_model(saved)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.best, self.bad_evaluations = saved["best"], saved["bad_evaluations"]
        self.best_trained = saved.get("best_trained", self.best)  # earlier versions have none
        self.codes = saved.get("codes", {})  # nor these
        return saved["done"]

    def _restore_model(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"]:
            torch.cuda.set_rng_state_all(saved["cuda_rng"])
