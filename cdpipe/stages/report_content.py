"""What a report is made of: the run, its pairs, and what else was found out about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdpipe.stages.report_tables import evaluation_rows


@dataclass(frozen=True, slots=True)
class PairPage:
    """What the report knows of a pair.

    Attributes:
        pair_id: The pair.
        name: What its owner calls it.
        split: Its split, empty where it has none.
        dates: Of both images, empty where they are not known.
        sensors: Of both images.
        facts: See :func:`cdpipe.stages.report_pair.make_pair`.
        files: Name and path, relative to the run's folder, of everything to hand on.
    """

    pair_id: str
    name: str
    split: str
    dates: tuple[str, str]
    sensors: tuple[str, str]
    facts: Mapping[str, Any]
    files: Sequence[tuple[str, str]]

    @property
    def page(self) -> str:
        """File of its page."""
        return f"{self.pair_id}.html"


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report is made of.

    Attributes:
        run: ``name``, ``id`` (of its results), ``version``, ``finished``, ``ensemble``, ``threshold``, ``fitted_on``.
        pairs: Finished pairs.
        problems: Name, whether it failed (or was skipped) and reason of all others.
        models: Rows of the table of models.
        training: Charts.
        log: Rows of the table of stages.
        versions: Of libraries.
        configuration: YAML.
        files: Of the run, as those of a pair.
        evaluation: ``evaluation.json``, None without labels.
        audits: ``audits.json``, None without.
    """

    run: Mapping[str, Any]
    pairs: Sequence[PairPage]
    problems: Sequence[Mapping[str, Any]]
    models: Sequence[Mapping[str, Any]]
    training: Sequence[Mapping[str, Any]]
    log: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str]
    configuration: str
    files: Sequence[tuple[str, str]]
    evaluation: Any = None
    audits: Any = None
    rows: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Take the rows out of the evaluation."""
        object.__setattr__(self, "rows", evaluation_rows(self.evaluation))
