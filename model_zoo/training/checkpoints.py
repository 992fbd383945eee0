"""Start from trained weights: a whole model from its own, or a backbone from those of a vanilla model or
of LongCTR's model of its name."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .progress import load_saved

PARTS = BLOCK, HEAD, EMBEDDING = "encoder.global_block.", "classifier.", "embedding_layer."
FILE = "write the path of a .model file"
HINT = "use a checkpoint of this backbone, and the configuration that it was trained with"


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Load embeddings, global block and head from a file; experts and routers stay as they are.

    Raises:
        ValueError: the file is no checkpoint, or it is from another backbone or has other sizes.
    """
    where = f"backbone_checkpoint: {path}"
    weights = _weights(where, path)
    if not any(name.startswith(BLOCK) for name in weights):
        try:
            weights = from_longctr(model, weights)
        except (ValueError, IndexError, KeyError, RuntimeError) as error:
            reason = f"the file has no weights of this model, nor of LongCTR's model ({error})"
            raise ValueError(f"{where}: {reason}; {HINT}") from None
    parts = {name: weight for name, weight in weights.items() if name.startswith(PARTS)}
    _load(where, model, parts, [name for name in model.state_dict() if name.startswith(PARTS)])


def load_grown(model: nn.Module, path: str | Path) -> None:
    """Load all weights from a file; embedding tables may have more rows, which stay as they are.

    Raises:
        ValueError: the file is no checkpoint, or it is from another model or has other sizes.
    """
    where, own = f"init_from: {path}", model.state_dict()
    weights = _weights(where, path)
    for name in own.keys() & weights.keys():
        known, start = weights[name], own[name]
        if name.startswith(EMBEDDING) and known.shape[1:] == start.shape[1:]:
            weights[name] = torch.cat([known, start[len(known) :].to(known)])
    _load(where, model, weights, list(own))


def _weights(where: str, path: str | Path) -> dict[str, Tensor]:
    """The weights of a file by name; ``where`` begins the message of an error."""
    try:
        weights = load_saved(path)
    except OSError as error:
        raise ValueError(f"{where}: {error.strerror}; {FILE}") from None
    except Exception as error:  # torch raises many kinds of errors
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: the file is not a checkpoint ({reason}); {FILE}") from None
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"{where}: the file holds no weights by name; {FILE}")
    return weights


def _load(where: str, model: nn.Module, weights: dict[str, Tensor], needed: list[str]) -> None:
    """Load weights that must have these names."""
    if missing := [name for name in needed if name not in weights]:
        raise ValueError(f"{where}: the file has no {missing[0]!r}, which this model needs; {HINT}")
    if unknown := [name for name in weights if name not in needed]:
        raise ValueError(f"{where}: {unknown[0]!r} has no place in this model; {HINT}")
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip(" \t.")
        raise ValueError(f"{where}: {reason}; {HINT}") from None


def from_longctr(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of LongCTR's model to the names of ours.

    Weights of the embedding layer have the same names in both. The head's get a prefix. All others
    are the block's, which renames them itself.
    """
    heads = tuple(f"{name}." for name, _ in model.classifier.named_children())
    ours = {name: weight for name, weight in weights.items() if name.startswith(EMBEDDING)}
    ours |= {HEAD + name: weight for name, weight in weights.items() if name.startswith(heads)}
    rest = {n: weight for n, weight in weights.items() if not n.startswith((EMBEDDING, *heads))}
    block = model.encoder.global_block.from_longctr(rest)
    return ours | {BLOCK + name: weight for name, weight in block.items()}
