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

from ..batch import Batch, Loader
from .optimizer import add_regularizer_gradient, clip_gradients
from .progress import TrainingError
from .trainable import Trainable


@dataclass
class Stepper:
    """Trains a model with one optimizer, epoch by epoch.

    Attributes:
        model: the model to train.
        optimizer: optimizer of the parameters that train.
        max_gradient_norm: gradients are clipped to this norm.
        frozen: modules that stay in evaluation mode, so that batch-norm statistics do not change.
    """

    model: Trainable
    optimizer: torch.optim.Optimizer
    max_gradient_norm: float = 10.0
    frozen: list[nn.Module] = field(default_factory=list)

    def epoch(self, loader: Loader, steps: int, title: str) -> Iterator[tuple[int, float, float]]:
        """Train on the first batches of a loader.

        Yields:
            After each step at which an evaluation is due: the number of the step, the mean loss
            since the last evaluation, and the samples per second since then.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        every = self.model.eval_steps or steps
        hidden = not (self.model.verbose and sys.stdout.isatty())  # a bar would fill a log file
        shown = dict(leave=False, file=sys.stdout, unit="batch")
        with tqdm(islice(loader, steps), title, steps, disable=hidden, **shown) as bar:
            batches = enumerate(bar, start=1)
            for first in range(0, steps, every):
                total_loss: Tensor | float = 0.0
                samples, start = 0, time.perf_counter()
                self.model.train()
                for module in self.frozen:
                    module.eval()
                for step, batch in islice(batches, every):
                    total_loss = total_loss + self.step(batch, step, steps)
                    samples += len(batch[2])
                    if step % 20 and step != steps and step - first != every:
                        continue  # reading the loss waits for the device
                    loss = float(total_loss / (step - first))
                    self._require_finite(loss, title, step)
                    rate = samples / (time.perf_counter() - start)
                    bar.set_postfix(loss=f"{loss:.4f}", samples_per_s=f"{rate:,.0f}", refresh=False)
                yield step, loss, rate

    def step(self, batch: Batch, step: int, steps: int) -> Tensor:
        """Run forward and backward on a batch, and step at the end of each group of batches.

        A group is ``accumulation_steps`` batches; the last one of an epoch may be smaller.
        """
        model, group = self.model, self.model.accumulation_steps
        loss = model.add_loss(model(batch), model.get_labels(batch))
        last_group = step > steps - steps % group
        if loss.requires_grad:  # it does not if only experts train and no sample has a history
            (loss / (steps % group if last_group else group)).backward()
        if step % group == 0 or step == steps:
            add_regularizer_gradient(model)
            clip_gradients(self.optimizer.param_groups[0]["params"], self.max_gradient_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            model.after_step()
        return loss.detach()

    def _require_finite(self, loss: float, title: str, step: int) -> None:
        if math.isfinite(loss):
            return
        where = f"in stage {title}, at or before step {step} of the epoch"
        rate, norm = self.model.learning_rate, self.max_gradient_norm
        cure = f"lower learning_rate ({rate:g}) or max_gradient_norm ({norm:g})"
        kept = "The last good checkpoint is kept"
        raise TrainingError(f"the training loss became {loss} {where}; {cure}. {kept}")
