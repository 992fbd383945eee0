"""Training within an epoch: the optimiser's steps, a progress bar and a check for NaN."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import ranks
from ..batch import Batch, Loader
from .optimizer import add_regularizer_gradient, clip_gradients
from .progress import Progress, TrainingError
from .trainable import Trainable


@dataclass
class Stepper:
    """Trains a model with one optimizer, epoch by epoch.

    Attributes:
        model: the model to train.
        optimizer: optimizer of the parameters that train.
        max_gradient_norm: gradients are clipped to this norm.
        frozen: modules that stay in evaluation mode, so that batch-norm statistics do not change.
        progress: counts the steps of ``epoch``.
    """

    model: Trainable
    optimizer: torch.optim.Optimizer
    max_gradient_norm: float = 10.0
    frozen: list[nn.Module] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

    def epoch(self, loader: Loader, steps: int, title: str) -> Iterator[bool]:
        """Train on the first batches of a loader, from ``progress.step`` on.

        Yields:
            After each step, whether an evaluation is due. If one was due when the state was saved,
            this comes before the first step, too.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        progress, every = self.progress, self.model.eval_steps or steps
        if progress.step > progress.evaluated and self._is_due(every, steps):
            yield True
        if progress.step == steps:
            return
        hidden = not (self.model.verbose and sys.stdout.isatty())  # a bar would fill a log file
        shown = dict(leave=False, file=sys.stdout, unit="batch", initial=progress.step)
        start = None
        rng, batches = torch.get_rng_state(), iter(loader)
        if progress.step:  # a loader that draws a number when it starts has done so before
            torch.set_rng_state(rng)
        rest = islice(batches, progress.step, steps)
        with tqdm(rest, title, steps, disable=hidden, **shown) as bar:
            for batch in bar:
                if start is None or progress.step == progress.evaluated:
                    start = time.perf_counter() - progress.seconds
                    self.model.train()
                    for module in self.frozen:
                        module.eval()
                progress.step += 1
                progress.total_loss = progress.total_loss + self.step(batch, progress.step, steps)
                progress.samples += len(batch[2]) * ranks.size()
                due = self._is_due(every, steps)
                if due or progress.step % 20 == 0:  # reading the loss waits for the device
                    self._require_finite(loss := progress.mean_loss, title)
                    progress.seconds = time.perf_counter() - start
                    rate = f"{progress.samples / progress.seconds:,.0f}"
                    bar.set_postfix(loss=f"{loss:.4f}", samples_per_s=rate, refresh=False)
                yield due

    def _is_due(self, every: int, steps: int) -> bool:
        return self.progress.step == min(self.progress.evaluated + every, steps)

    def ends_group(self, step: int, steps: int) -> bool:
        """Whether the optimiser steps after this batch, so that no gradient is left."""
        return step % self.model.accumulation_steps == 0 or step == steps

    def step(self, batch: Batch, step: int, steps: int) -> Tensor:
        """Run forward and backward on a batch, and step at the end of each group of batches.

        A group is ``accumulation_steps`` batches; the last one of an epoch may be smaller. The loss
        that is returned is that of all ranks, and so are the gradients of the optimiser's step.
        """
        model, group = self.model, self.model.accumulation_steps
        loss = model.add_loss(model(batch), model.get_labels(batch))
        last_group = step > steps - steps % group
        if loss.requires_grad:  # it does not if only experts train and no sample has a history
            (loss / (steps % group if last_group else group)).backward()
        if self.ends_group(step, steps):
            trained = self.optimizer.param_groups[0]["params"]
            ranks.average_gradients(trained)
            add_regularizer_gradient(model)
            clip_gradients(trained, self.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            model.after_step()
        return ranks.mean(loss.detach())

    def _require_finite(self, loss: float, title: str) -> None:
        if math.isfinite(loss):
            return
        where = f"in stage {title}, at or before step {self.progress.step} of the epoch"
        rate, norm = self.model.learning_rate, self.max_gradient_norm
        cure = f"lower learning_rate ({rate:g}) or max_gradient_norm ({norm:g})"
        kept = "The last good checkpoint is kept"
        raise TrainingError(f"the training loss became {loss} {where}; {cure}. {kept}")
