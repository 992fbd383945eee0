"""What the candidate and the events of its history share, as numbers that a head can read.

An event matches in a feature if it has the candidate's value. Of a list of values, it counts by the
share of the candidate's values that it has. Padding and the id of rare values never match. For each
feature with ids these are the numbers:

- how many events match, and which share of the history they are;
- ``1 / place`` of the newest match, where the last event has place 1; 0 if nothing matches;
- where times are known, how recent the newest match is, and how many matches are in each window of
  time before the sample. Recency falls from 5 to 0 with the logarithm of the seconds;
- where times are known, how popular the candidate's value was: ``log(1 + n) / 3``, if n of a million
  events of all users before the sample showed it.

Where times are known, the recency of the last event comes too. For each feature of vectors, the
numbers are a histogram of the cosines between the candidate and the events (SimTier, arXiv
2512.07216). Numbers of events are ``log(1 + number)``. Scaled to 1 at most, they gave a lower AUC: the
embeddings learned the samples by heart before the head had learned to read them.

Shape suffixes: B samples, L positions, U rows (distinct items), F features with ids, K values of an
item, W windows of time, and the whole, T tiers of cosines, M numbers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .history import History

NOW = 5.0  # the recency of what is now: about the logarithm of the number of matches in a long history
LONG = 18.0  # about the logarithm of the seconds of two years
TIERS = 8  # of cosines from -1 to 1
ALIGN = 8
NO_IDS = "match_features: no feature of items has ids; leave the key out"


class Matches(NamedTuple):
    """What matches; ``inf`` is the place and the gap of what is not there.

    Attributes:
        length_B: events of the history.
        count_BFW: events that match: all of them, then those in each window of time.
        place_BF: place of the newest match; the last event has place 1.
        gap_BG: seconds since the newest match in each feature, and since the last event (G = F + 1);
            None where no times are known.
        popular_BF: share of the events of all users before the sample that show the candidate's
            value, of a list its most frequent one; None where no times are known.
    """

    length_B: Tensor
    count_BFW: Tensor
    place_BF: Tensor
    gap_BG: Tensor | None = None
    popular_BF: Tensor | None = None

    def numbers(self) -> Tensor:
        """The numbers for the head, ``(B, M)``, float32, from 0 to about 5."""
        share_BF = self.count_BFW[:, :, 0] / self.length_B.clamp(min=1)[:, None]
        found = [self.count_BFW.log1p().flatten(1), share_BF, 1 / self.place_BF]
        if self.gap_BG is not None and self.popular_BF is not None:
            found.append(NOW * (1 - self.gap_BG.log1p() / LONG).clamp(min=0))
            found.append((1e6 * self.popular_BF).log1p() / 3)
        return torch.cat(found, dim=1)


class MatchReader:
    """Reads the numbers of a batch, which are counted already or are counted from its items.

    Args:
        features: FuxiCTR's specification of each feature.
        windows: how many windows of time there are; None if times are not read.
        beside: width of what else the head reads. Zeros fill its input up to a multiple of ``ALIGN``,
            since products of other widths take a tenth more time.

    Attributes:
        counted: how many of the numbers are about ids and times.
        width: how many there are, with the zeros.

    Raises:
        ValueError: no feature of items has ids.
    """

    def __init__(
        self, features: Mapping[str, dict[str, Any]], windows: int | None, beside: int = 0
    ) -> None:
        self.rare = id_features(features)
        if not self.rare:
            raise ValueError(NO_IDS)
        self.timed = windows is not None
        items = {name: spec for name, spec in features.items() if spec.get("source") == "item"}
        self.vectors = [name for name, spec in items.items() if spec["type"] == "embedding"]
        self.counted = 3 * len(self.rare)
        if windows is not None:
            self.counted += (2 + windows) * len(self.rare) + 1
        numbers = self.counted + TIERS * len(self.vectors)
        self.zeros = -(beside + numbers) % ALIGN
        self.width = numbers + self.zeros

    @torch.no_grad()
    def read(
        self,
        counted_BM: Tensor | None,
        columns: Mapping[str, Tensor],
        row_BL1: Tensor,
        mask_BL: Tensor,
    ) -> Tensor:
        """The numbers ``(B, M)``.

        Args:
            counted_BM: the numbers about ids and times, if they are counted already, as in the
                ``ItemDict`` of a batch; LongCTR's plain dictionary lacks them.
            columns: the features of the items, U rows.
            row_BL1: the row of each position; the target is the last column.
            mask_BL: true at real items.

        Raises:
            ValueError: times are to be read, but the batch has none.
        """
        if counted_BM is None:
            if self.timed:
                raise ValueError(
                    "match_windows: the batch has no times; leave the key out, or use the loader of "
                    "this project with match_features: True"
                )
            counted_BM = count_matches(self._values(columns), row_BL1, mask_BL).numbers()
        tiers = [tier_counts(columns[name], row_BL1, mask_BL).log1p() for name in self.vectors]
        return F.pad(torch.cat([counted_BM, *tiers], dim=1), (0, self.zeros))

    def within(
        self, columns: Mapping[str, Tensor], target_B: Tensor, sample_P: Tensor, part: History
    ) -> Tensor:
        """The numbers about ids of parts of histories, without times, ``(P, 3 F)``.

        Args:
            columns: as in ``read``.
            target_B: the row of each target.
            sample_P: the sample of each part.
            part: the parts, or one that all these samples share.
        """
        index_PL, mask_PL = (x.expand(sample_P.shape[0], -1) for x in (part.index_BL, part.mask_BL))
        row_PL1 = torch.cat([index_PL, target_B[sample_P, None]], dim=1)
        return count_matches(self._values(columns), row_PL1, mask_PL).numbers()

    def _values(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: distinct_values(columns[name], rare) for name, rare in self.rare.items()}


def id_features(features: Mapping[str, dict[str, Any]]) -> dict[str, int]:
    """The item features that have ids, each with the id of its rare values; 0 if it has none."""
    return {
        name: spec.get("oov_idx", 0)
        for name, spec in features.items()
        if spec.get("source") == "item" and spec["type"] in ("categorical", "sequence")
    }


def distinct_values(ids: Tensor, rare: int) -> Tensor:
    """The values of each item that can match, once each and the largest first, ``(U, K)``; else 0.

    Args:
        ids: of a feature, ``(U,)`` or ``(U, K)``.
        rare: the id of rare values.
    """
    value_UK = ids.reshape(ids.shape[0], -1)
    value_UK = value_UK.masked_fill(value_UK == rare, 0)
    if value_UK.shape[1] > 1:
        value_UK = value_UK.sort(1, descending=True).values
        again_UK = F.pad(value_UK[:, 1:] == value_UK[:, :-1], (1, 0))
        value_UK = value_UK.masked_fill(again_UK, 0)
    return value_UK


def count_matches(values: Mapping[str, Tensor], row_BL1: Tensor, mask_BL: Tensor) -> Matches:
    """Count the matches of a batch by comparing each event with its candidate."""
    L = mask_BL.shape[1]
    counts, places = [], []
    place_L = torch.arange(L, 0, -1, device=mask_BL.device).float()
    for value_UK in values.values():
        value_BLK, own_BK = value_UK[row_BL1[:, :-1]], value_UK[row_BL1[:, -1]]
        own_B = (own_BK > 0).sum(1, keepdim=True).clamp(min=1)
        match_BL = torch.zeros_like(mask_BL, dtype=torch.float32)
        for own_B11 in own_BK[..., None, None].unbind(1):
            match_BL += ((value_BLK == own_B11) & (own_B11 > 0)).any(2)
        match_BL *= mask_BL
        counts.append(match_BL.sum(1) / own_B[:, 0])
        places.append(torch.where(match_BL > 0, place_L, torch.inf).amin(1))
    count_BFW = torch.stack(counts, 1)[..., None]
    return Matches(mask_BL.sum(1).float(), count_BFW, torch.stack(places, 1))


def tier_counts(vector_UD: Tensor, row_BL1: Tensor, mask_BL: Tensor) -> Tensor:
    """How many events have a cosine with the candidate in each tier, ``(B, T)``; zeros have none."""
    vector_UD = vector_UD.float()
    norm_U1 = vector_UD.norm(dim=1, keepdim=True)
    unit_UD, known_U = vector_UD / norm_U1.clamp(min=1e-12), norm_U1[:, 0] > 0
    history = History(unit_UD, row_BL1[:, :-1], mask_BL)
    cosine_BL = history.scores(unit_UD[row_BL1[:, -1:]])[:, 0]
    known_BL = mask_BL & known_U[row_BL1[:, :-1]] & known_U[row_BL1[:, -1:]]
    tier_BL = ((cosine_BL + 1) / 2 * TIERS).long().clamp(0, TIERS - 1)
    found_BT = cosine_BL.new_zeros(mask_BL.shape[0], TIERS)
    return found_BT.scatter_add_(1, tier_BL, known_BL.float())
