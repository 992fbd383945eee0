"""Where each model was published, as BARS' leaderboards name it."""

from __future__ import annotations

from typing import NamedTuple


class Publication(NamedTuple):
    """Three columns of a BARS leaderboard."""

    year: int
    venue: str
    url: str


PUBLICATIONS = {
    "Mamba4Rec": Publication(2024, "RelKD'24", "https://arxiv.org/abs/2403.03900"),
    "TransAct": Publication(2023, "KDD'23", "https://arxiv.org/abs/2306.00248"),
    "TWIN": Publication(2023, "KDD'23", "https://arxiv.org/abs/2302.02352"),
    "SDIM": Publication(2022, "CIKM'22", "https://arxiv.org/abs/2205.10249"),
    "MIRRN": Publication(2025, "KDD'25", "https://arxiv.org/abs/2411.15005"),
    "AttenMixer": Publication(2023, "WSDM'23", "https://doi.org/10.1145/3539597.3570445"),
    "MiasRec": Publication(2024, "SIGIR'24", "https://arxiv.org/abs/2405.00986"),
    "GShard": Publication(2021, "ICLR'21", "https://arxiv.org/abs/2006.16668"),
    "DSelectK": Publication(2021, "NeurIPS'21", "https://arxiv.org/abs/2106.03760"),
    "ExpertChoice": Publication(2022, "NeurIPS'22", "https://arxiv.org/abs/2202.09368"),
    "MoS": Publication(2026, "WWW'26", "https://doi.org/10.1145/3774904.3792483"),
}


def publication(model: str) -> Publication | None:
    """Of a model; of its mixture's paper where it is one, as ``TWIN_MoS``."""
    return PUBLICATIONS.get(model.rpartition("_")[2])
