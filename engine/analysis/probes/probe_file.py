"""The file of a probe, ``probes/*.json``, with what figures read of it; what is unknown is null."""

from typing import Annotated

from pydantic import Field, model_validator

from ...common.schema import ABSENT, Count, Schema, Seed, Share, Size, rule

Expert = Annotated[int, rule("an expert from 0, or -1", lambda number: number >= -1)]
Small = Annotated[float, rule("a number from -100 to 100", lambda number: abs(number) <= 100)]
CosineRow = Annotated[
    str,
    rule(
        "cosines in hundredths",
        lambda row: all(len(x) < 5 and x.removeprefix("-").isdecimal() for x in row.split()),
    ),
]


class About(Schema):
    """The run, and what was looked at."""

    seed: Seed
    model: str
    dataset_id: str
    split: str
    users: Count
    items: Count


class Interval(Schema):
    """A mean over users with its 95 % interval, which a mean of one user lacks."""

    mean: Small | None
    low: Small | None
    high: Small | None

    @model_validator(mode="after")
    def _is_whole(self) -> "Interval":
        known = [x for x in (self.low, self.mean, self.high) if x is not None]
        of_one = self.mean is not None and len(known) == 1
        if not (of_one or len(known) in (0, 3)) or known != sorted(known):
            raise ValueError("low, mean and high are not in order, or one is missing")
        return self


class Statistics(Schema):
    """The statistics of sessions that the figure shows."""

    within: Interval
    adjacent: Interval
    distant: Interval
    reappearing: Interval


class Example(Schema):
    """The sessions of one user; row i of the similarity has i + 1 cosines."""

    quantile: Share
    score: Small
    borders: list[Count]
    similarity: list[CosineRow] = Field(min_length=1)
    experts: list[Expert] | None

    @model_validator(mode="after")
    def _fits(self) -> "Example":
        size = len(self.similarity)
        if [len(row.split()) for row in self.similarity] != [*range(1, size + 1)]:
            raise ValueError("its similarity is no triangle")
        if size != len(self.experts or self.similarity):
            raise ValueError("it has not one expert for each row of its similarity")
        return self


class PlantedBorders(Schema):
    """How well borders agree with those of planted sessions."""

    precision: Share
    recall: Share
    tolerance: Count


class Hopping(Schema):
    """Session hopping."""

    users: Count
    real: Statistics
    shuffled: Statistics
    examples: list[Example]
    planted_borders: PlantedBorders = ABSENT


class Seen(Schema):
    """An item and how often it appears."""

    item: Count
    appearances: Count


class Mode(Schema):
    """Where appearances go in one mode, as shares of each expert."""

    most: list[Share] = ABSENT
    least: list[Share] = ABSENT
    most_sent: list[Share] = ABSENT
    least_sent: list[Share] = ABSENT
    consistency: Share | None
    unrouted: Share


class Dispatch(Schema):
    """How a branch routes a popular and a rare item; without such items, the modes lack their shares."""

    experts: Size
    most: Seen | None
    least: Seen | None
    train: Mode
    eval: Mode

    @model_validator(mode="after")
    def _has_all_experts(self) -> "Dispatch":
        for mode in (self.train, self.eval) if self.most else ():
            parts = mode.most, mode.least, mode.most_sent, mode.least_sent
            if self.least is None or mode.consistency is None:
                raise ValueError("has a most popular item, and lacks the rest")
            if any(part is None or len(part) != self.experts for part in parts):
                raise ValueError("its shares are not of all experts")
        return self


class Near(Schema):
    """An item near a code."""

    item: Count
    name: str | None
    category: int | None
    category_name: str | None


class Code(Schema):
    """What a code stands for."""

    items: Count
    nearest: list[Near]
    main_category: int | None = ABSENT
    main_name: str | None
    main_share: Share = ABSENT

    @model_validator(mode="after")
    def _has_the_share_of_its_category(self) -> "Code":
        if self.main_category is not None and self.main_share is None:
            raise ValueError("has a main_category, and lacks the main_share")
        return self


class Themes(Schema):
    """Codes and categories; without categories their numbers are absent."""

    kind: str | None
    codes: list[Code] | None
    categories: Count = ABSENT
    purity: Share = ABSENT
    purity_null: Share = ABSENT
    ami: Small = ABSENT
    ami_null: Small = ABSENT

    @model_validator(mode="after")
    def _has_all_numbers(self) -> "Themes":
        numbers = self.categories, self.purity, self.purity_null, self.ami, self.ami_null
        if len({number is None for number in numbers}) > 1:
            raise ValueError("has some numbers of the categories, and lacks others")
        return self


class Probe(Schema):
    """The numbers of ``probe``."""

    about: About
    session_hopping: Hopping
    dispatch: dict[str, Dispatch]
    themes: Themes | None
