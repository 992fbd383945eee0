"""The training loop: stages, evaluations, early stopping, the best checkpoint, and resume."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from .. import ranks
from ..batch import Batch, Loader
from ..moe.stages import Stage, StageName
from .interrupts import Interrupts
from .optimizer import build_optimizer, frozen_modules
from .progress import Progress, TrainingError, digest_of, load_state, save_atomically, save_state
from .routing_report import branch_codes, code_movement, log_report, routing_report
from .steps import Stepper
from .trainable import Trainable

ROUTING_BATCHES = 20  # validation batches in a routing report, spread evenly over the split


@dataclass
class Trainer:
    """Trains a model stage by stage and leaves it with its best weights.

    Every stage has an optimizer of its own and stops early by the monitor. Its weights are
    evaluated at its start and during training, and it ends with the best of them. So no stage ends
    worse than it began, and the weights of the last stage are the result. Patience and the learning
    rate ignore the evaluation at the start. The order of samples, dropout and k-means depend on
    ``seed`` and the number of ranks alone.

    Args:
        model: the model, which holds its stages, monitor, patience and checkpoint file.
        train_loader: training batches; its ``epoch`` is set to the number of the epoch.
        valid_loader: validation batches.
        epochs: the most epochs of the joint stage; may be a fraction.
        max_gradient_norm: gradients are clipped to this norm.
        seed: seed of everything random.
        resume_file: the whole state is written here when a stage starts, after each evaluation, as
            the minutes say, and before a signal ends the process. If the file exists, training goes
            on from it and gives the same numbers as without the break. The caller removes the file
            once its own results are saved.
        checkpoint_minutes: time between two states; longer where that keeps their cost below 1 %.
        identity: what makes this run itself, as a text. Each state has it, so that the caller can
            see whether a state is this run's.
        on_evaluation: called with ``model.stage_log`` after each evaluation.

    ``model.stage_log`` gets one entry per evaluation after training: stage, epoch, loss, metrics,
    speed and routing. Routing includes how far the codes moved since the last evaluation, or since
    the stage began. ``model.stage_start`` gets one entry per stage, with the metrics of the weights
    that it began with.
    """

    model: Trainable
    train_loader: Loader
    valid_loader: Loader
    _: KW_ONLY
    epochs: float = 1
    max_gradient_norm: float = 10.0
    seed: int = 2024
    checkpoint_minutes: float = 5.0
    resume_file: str | None = None
    identity: str = ""
    on_evaluation: Callable[[list[dict[str, Any]]], None] | None = None

    def __post_init__(self) -> None:
        self._use(Progress())
        self.interrupts, self.next_save, self.is_whole = Interrupts(), 0.0, False
        Path(self.model.checkpoint).parent.mkdir(parents=True, exist_ok=True)

    def _use(self, progress: Progress) -> None:
        """Take this progress as the present one; the model shares its logs."""
        self.progress = progress
        self.model.stage_log, self.model.stage_start = progress.stage_log, progress.stage_start

    def fit(self) -> None:
        """Run all stages, from the start or from a saved state.

        Raises:
            TrainingError: the loss or a metric is NaN or infinite, or a file cannot be written. The
                best checkpoint is then untouched.
        """
        torch.manual_seed(self.seed + ranks.rank())  # each has its own dropout
        self.model.before_training(self.train_loader)  # before the saved state of random numbers
        saved, stages = self._resume(), self.model.stages(self.epochs)
        first_with_experts = [stage.name != StageName.BACKBONE for stage in stages].index(True)
        for index in range(self.progress.stage_index, len(stages)):
            if saved is None and index == first_with_experts:
                self._prepare_experts()
            self.progress.stage_index = index
            # log lines go above the progress bar, not through it
            with logging_redirect_tqdm(), self.interrupts:
                self.run_stage(stages[index], saved)
            saved = None

    def _prepare_experts(self) -> None:
        """Prepare the experts from whole batches, of which all ranks read the same."""
        loader = self.train_loader
        loader.epoch, loader.share = 0, slice(None)
        self.model.before_experts(loader, self.seed)
        loader.share = ranks.share()

    def run_stage(self, stage: Stage, saved: dict[str, Any] | None = None) -> None:
        """Train one stage, from its start or from ``saved``, and load its best weights."""
        model, progress = self.model, self.progress
        self.is_whole = False
        if saved is None:
            ranks.align(model)
        model.enter(stage.name)
        with frozen_modules(model, stage.name) as frozen:
            self.optimizer = build_optimizer(model)
            stepper = Stepper(model, self.optimizer, self.max_gradient_norm, frozen, progress)
            resumed = f"resumed after {progress.done:g} epochs and {progress.step} steps"
            begins = resumed if saved else f"at most {stage.epochs:g} epochs"
            logging.info(f"******** Stage {stage.name}: {begins} ********")
            if saved is None:
                logging.info("validation before training:")
                self._start(stage)
                # The first weights become the checkpoint if the first evaluation finds none better.
                # Until then they stay in memory, so that a run that fails at once does not overwrite
                # the checkpoint of an earlier run.
                start = model.state_dict().items()
                self.start_weights = {name: weight.to("cpu", copy=True) for name, weight in start}
                self._save_state()
            else:
                self.optimizer.load_state_dict(saved["optimizer"])
                self.start_weights = saved["start_weights"]
            while progress.done < stage.epochs and not self._is_over():
                part = min(1.0, stage.epochs - progress.done)
                self._run_epoch(stage, part, stepper)
                progress.done, progress.step = progress.done + part, 0
                progress.start_window()
        model.zero_grad()
        model.forget_observed()  # early stopping may have cut a group of batches short
        model.load_state_dict(ranks.on_first(self._best_weights))

    def _run_epoch(self, stage: Stage, part: float, stepper: Stepper) -> None:
        """Train ``part`` of an epoch (1 is all of it), and evaluate at its end or more often."""
        loader, progress = self.train_loader, self.progress
        progress.epochs_seen += not progress.step  # else it has begun before
        loader.epoch = progress.epochs_seen - 1
        steps = math.ceil(part * len(loader))
        title = f"{stage.name} {progress.done + part:g}/{stage.epochs:g}"
        for due in stepper.epoch(loader, steps, title):
            self.is_whole = stepper.ends_group(progress.step, steps)
            if due:
                self._evaluate(stage, progress.done + part * progress.step / steps)
                self.next_save = 0.0
            self._save_if_due()
            if self._is_over():
                break

    def _is_over(self) -> bool:
        """Whether so many evaluations had no gain that the stage stops early."""
        return self.progress.bad_evaluations >= self.model.early_stop_patience

    # ---------------------------------------------------------------- evaluation

    def _start(self, stage: Stage) -> None:
        """Evaluate the weights that a stage begins with, since they may stay its best."""
        start = time.perf_counter()
        metrics, score = self._validate(stage, 0.0)
        self.progress.start_stage(score, branch_codes(self.model))
        about = dict(stage=stage.name.value, best=True, valid_seconds=time.perf_counter() - start)
        self.model.stage_start.append(metrics | about)

    def _evaluate(self, stage: Stage, epoch: float) -> None:
        """Validate, log, keep the best weights, and lower the learning rate on a plateau."""
        model, progress, start = self.model, self.progress, time.perf_counter()
        loss, samples_per_s = progress.mean_loss, progress.samples / progress.seconds
        metrics, score = self._validate(stage, epoch)
        improved = progress.judge(score)
        routing = self._routing() if stage.name != StageName.BACKBONE else {}
        entry: dict[str, Any] = {"stage": stage.name.value, "epoch": round(epoch, 4)}
        entry |= {"train_loss": loss, **metrics, "best": improved}
        entry |= {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        entry |= {"samples_per_s": samples_per_s, "valid_seconds": time.perf_counter() - start}
        model.stage_log.append(entry | {"routing": routing})
        logging.info(
            f"{stage.name} epoch {epoch:g}: train loss {loss:.6f}, {samples_per_s:,.0f} samples/s"
            + (", best so far" if improved else ", no improvement")
        )
        if self.on_evaluation is not None:
            ranks.on_first(partial(self.on_evaluation, model.stage_log))
        if improved or self.start_weights:
            weights = model.state_dict() if improved else self.start_weights
            progress.checkpoint = ranks.on_first(
                partial(save_atomically, weights, model.checkpoint)
            )
            self.start_weights = {}
        if progress.bad_evaluations and model.reduce_lr_on_plateau:
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] * 0.1, 1e-6)
        progress.start_window()

    def _validate(self, stage: Stage, epoch: float) -> tuple[dict[str, float], float]:
        """The metrics of the present weights on the validation data, and the monitor.

        Raises:
            TrainingError: the monitor is not finite, or a metric is undefined.
        """
        try:
            metrics = self.model.evaluate(self._watched(self.valid_loader))
            if not math.isfinite(score := self.model.monitored(metrics)):
                raise ValueError(f"the monitor is {score}, which is not a finite number")
        except ValueError as error:
            where = f"validation in stage {stage.name}, epoch {epoch:g}"
            raise TrainingError(f"{where}: {error}") from None
        return metrics, score

    def _routing(self) -> dict[str, dict[str, Any]]:
        """The routing report of each branch; ``code_movement`` is since the last evaluation."""
        every = -(-len(self.valid_loader) // ROUTING_BATCHES)
        report = routing_report(self.model, islice(self.valid_loader, 0, None, every))
        log_report(report)
        before, self.progress.codes = self.progress.codes, branch_codes(self.model)
        for name, branch in report.items():
            branch["code_movement"] = code_movement(before.get(name), self.progress.codes.get(name))
        return report

    # ---------------------------------------------------------------- resume

    def _watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches of an evaluation, in which the state is saved as between two steps."""
        for batch in batches:
            self._save_if_due()
            yield batch

    def _save_if_due(self) -> None:
        """Save the state if it is time, and before a signal ends training by KeyboardInterrupt.

        With gradients of half a group of batches, this waits until the group is whole.
        """
        if not self.is_whole:
            return
        late = time.monotonic() >= self.next_save
        noted, due = ranks.most(self.interrupts.noted or 0, late)
        if noted or due:
            self._save_state()
        if noted:
            self.interrupts.noted = noted  # by another rank, too
            saved = "is saved" if self.resume_file is not None else "is lost"
            name = signal.Signals(noted).name
            logging.info(f"{name}: the state after step {self.progress.step} {saved}")
            raise KeyboardInterrupt

    def _save_state(self) -> None:
        """Write everything that the rest of the run depends on to ``resume_file``."""
        start = time.monotonic()
        if self.resume_file is not None:
            # ``state_dict`` would move the rows of sparse tables, and so change the run.
            own = dict(self.model.named_parameters(remove_duplicate=False))
            own |= dict(self.model.named_buffers(remove_duplicate=False))
            states: dict[str, Any] = {
                "model": {name: value.detach() for name, value in own.items()}
            }
            states |= dict(optimizer=self.optimizer.state_dict(), start_weights=self.start_weights)
            states |= dict(rng=ranks.gathered(torch.get_rng_state()[None]), identity=self.identity)
            if (device := self.model.device).type == "cuda":
                states["cuda_rng"] = ranks.gathered(torch.cuda.get_rng_state(device)[None])
            states["progress"] = vars(self.progress)
            ranks.on_first(partial(save_state, states, self.resume_file))
        now = time.monotonic()
        self.next_save = now + max(60 * self.checkpoint_minutes, 100 * (now - start))

    def _resume(self) -> dict[str, Any] | None:
        """Load the saved state and return it, or None if there is none.

        The optimizer's part is not loaded here, since each stage builds its own optimizer.
        """
        if self.resume_file is None:
            return None
        saved = ranks.on_first(partial(load_state, self.resume_file))
        if saved is None or "progress" not in saved:  # the run had only begun
            return None
        self._use(Progress(**saved["progress"]))
        if self.progress.checkpoint:
            ranks.on_first(self._require_checkpoint)
        self.model.load_state_dict(saved["model"], strict=False)  # some buffers are no state
        own = ranks.rank()
        torch.set_rng_state(saved["rng"][own].clone())  # torch reads the storage from its start
        if (device := self.model.device).type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"][own].clone(), device)
        return saved

    def _best_weights(self) -> dict[str, torch.Tensor]:
        """The best weights of the stage, from the checkpoint."""
        self._require_checkpoint(self.progress.checkpoint)
        return torch.load(self.model.checkpoint, map_location="cpu", weights_only=True)

    def _require_checkpoint(self, digest: str = "") -> None:
        """Raise a TrainingError unless the checkpoint is whole and, if given, has this digest."""
        file = self.model.checkpoint
        if (found := digest_of(file)) != (digest or found) or not found:
            raise TrainingError(f"{file} is not what this run has saved; start the run again")
