"""What a report is made of, as values: all of it, and what it knows of a pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdpipe.geo.grid import Window
from cdpipe.report import tables


@dataclass(frozen=True, slots=True)
class PairPage:
    """What the report knows of a pair.

    Attributes:
        pair_id: The pair.
        name: What its owner calls it.
        split: Its split, empty where it has none as a whole.
        dates: Of both images, empty where they are not known.
        sensors: Of both images.
        facts: See :func:`cdpipe.report.pair.make_pair`.
        files: Name and path, relative to the run's folder, of everything to hand on.
        strips: The pixels of each split, where the pair is cut.
        no_objects: Why it has no change objects; None where it has them, or none are wanted.
        models: How many predicted it.
        no_verdicts: Why verdicts on its changes make no label; None where they do.
        doubts: In which ways it is unlike all that a model learned from which predicts it.
    """

    pair_id: str
    name: str
    split: str
    dates: tuple[str, str]
    sensors: tuple[str, str]
    facts: Mapping[str, Any]
    files: Sequence[tuple[str, str]]
    strips: Mapping[str, Window] = field(default_factory=dict)
    no_objects: str | None = None
    models: int = 2
    no_verdicts: str | None = None
    doubts: Sequence[str] = ()

    @property
    def splits(self) -> str:
        """Its split, or those that it is cut into, in words."""
        return ", ".join(self.strips) or self.split

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
        doubts: Ways in which pairs are unlike all that the models learned from.
        styles: Of layers in QGIS, as XML by what they are of; none where no projects are wanted.
        to_label: Whether no pair has a label: then changes are ranked by how much a verdict would teach.
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
    doubts: Sequence[str] = ()
    styles: Mapping[str, str] = field(default_factory=dict)
    to_label: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the evaluation."""
        return tables.evaluation_rows(self.evaluation)
