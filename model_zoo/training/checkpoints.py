"""Start a backbone from trained weights: a vanilla model's, or LongCTR's model of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..moe.mixtures import Mixture

BLOCK, HEAD, EMBEDDING = "encoder.global_block.", "classifier.", "embedding_layer."


def load_backbone(model: nn.Module, path: str | Path) -> None:
    """Load embeddings, global block and head; experts and routers stay as they are.

    Raises:
        ValueError: the file is not a checkpoint, or not one of this backbone with these sizes.
    """
    where = f"backbone_checkpoint: {path}"
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{where}: no such file; write the path of a .model file") from None
    except Exception as error:  # torch.load raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where}: not a checkpoint ({reason})") from None
    named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not named or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError(f"{where}: holds no weights by name; write the path of a .model file")
    if not any(name.startswith(BLOCK) for name in weights):
        try:
            weights = from_longctr(model, weights)
        except (ValueError, IndexError, KeyError, RuntimeError) as error:
            raise ValueError(f"{where}: not weights of LongCTR's model ({error})") from None
    own = model.state_dict()
    needed = [name for name in own if name.startswith((BLOCK, HEAD, EMBEDDING))]
    for name in needed:
        if name not in weights:
            raise ValueError(
                f"{where}: has no {name!r}; is it of a {type(model).__name__} backbone?"
            )
        if weights[name].shape != own[name].shape:
            raise ValueError(
                f"{where}: {name!r} is {tuple(weights[name].shape)}, but the configuration makes it "
                f"{tuple(own[name].shape)}; use the configuration that it was trained with"
            )
    unknown = [n for n in weights if n.startswith((BLOCK, HEAD, EMBEDDING)) and n not in own]
    if unknown:
        raise ValueError(
            f"{where}: {unknown[0]!r} has no place in this model; "
            "use the configuration that it was trained with"
        )
    model.load_state_dict({name: weights[name] for name in needed}, strict=False)


def from_longctr(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of LongCTR's model to ours.

    The embedding layer keeps its names. Parts of the head have the names of ``heads.py`` there. The
    block renames the rest.
    """
    encoder, classifier = cast(Mixture, model.encoder), cast(nn.Module, model.classifier)
    heads = tuple(f"{name}." for name, _ in classifier.named_children())
    renamed, block = {}, {}
    for name, weight in weights.items():
        if name.startswith(EMBEDDING):
            renamed[name] = weight
        elif name.startswith(heads):
            renamed[HEAD + name] = weight
        else:
            block[name] = weight
    for name, weight in encoder.global_block.from_longctr(block).items():
        renamed[BLOCK + name] = weight
    return renamed
