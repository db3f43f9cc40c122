"""Findings about many pairs as few lines: equal ones become one, with a count and the first few names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cdpipe.pairs.catalog import Pair

NAMED = 3  # pairs that a line names; findings of so few stay lines of their own
ALIKE = 3  # texts that differ in figures alone, before they become one line
CATALOG = "catalog"  # stands for a pair where a finding is about all of them

PATH = re.compile(r"(?:/|[a-z][a-z0-9]*://)[^:]*?(?=: )")
# Figures that stand by themselves; those within names, such as B04 or S2A, tell things apart.
FIGURE = re.compile(r"(?<![\w.])[+-]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?(?!\w)")


@dataclass(slots=True)
class Group:
    """What was found of one or many pairs.

    Attributes:
        rest: What there is to say, without the file that it begins with.
        pairs: The pairs, each once, in their order.
        files: The files, likewise; none where the text begins with none.
    """

    rest: str
    pairs: dict[str, None] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """The pair, or the first few of them and how many there are."""
        names = list(self.pairs)
        return ", ".join(names) if len(names) <= NAMED else f"{len(names)} pairs ({', '.join(names[:NAMED])}, ...)"

    @property
    def text(self) -> str:
        """What there is to say, with the file, or the first of them."""
        files = list(self.files)
        if len(files) < 2:
            return ": ".join([*files, self.rest])
        count = "" if len(files) == len(self.pairs) else f"{len(files)} files, "
        return f"{self.rest}; {count}the first is {files[0]}"

    def __str__(self) -> str:
        """All of it as a line."""
        if CATALOG in self.pairs:
            return self.text
        kind = "" if len(self.pairs) > NAMED else "pair " if len(self.pairs) == 1 else "pairs "
        return f"{kind}{self.who}: {self.text}"


def files_of(pairs: Iterable[Pair]) -> dict[str, list[str]]:
    """The files that texts about pairs may name, by pair."""
    return {
        pair.pair_id: [
            str(file)
            for file in (pair.before.path, pair.after.path, pair.label, pair.before_valid, pair.after_valid)
            if file is not None
        ]
        for pair in pairs
    }


def group_findings(
    findings: Iterable[tuple[str, str]], files: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[Group]:
    """Put equal findings together.

    Texts are equal if they are so without the files that they name. Of more than a few pairs they become one; those
    that differ in their figures alone, too, if they are many: the figures of the first are shown then.

    Args:
        findings: Of each the pair, and what there is to say, which may begin with a file's path and a colon.
        files: Files of the pairs, by :func:`files_of`; of other paths the form tells.

    Returns:
        Groups in the order of their first findings; of few pairs each finding is one.
    """
    known = {pair_id: sorted(own, key=len, reverse=True) for pair_id, own in files.items()}
    parts = [(pair_id, *_parts(text, known.get(pair_id, ()))) for pair_id, text in dict.fromkeys(findings)]
    pairs_of: dict[str, set[str]] = {}
    texts_of: dict[str, set[str]] = {}
    for pair_id, _, _, kind in parts:
        for each in (kind, FIGURE.sub("\0", kind)):
            pairs_of.setdefault(each, set()).add(pair_id)
        texts_of.setdefault(FIGURE.sub("\0", kind), set()).add(kind)
    groups: dict[tuple[str, ...], Group] = {}
    for pair_id, file, rest, kind in parts:
        blurred = FIGURE.sub("\0", kind)
        many_figures = len(texts_of[blurred]) > ALIKE and len(pairs_of[blurred]) > NAMED
        together = blurred if many_figures else kind
        key = (together,) if len(pairs_of[together]) > NAMED else (kind, file) if file else (kind, file, pair_id)
        shown = f"{rest} (figures of the first)" if many_figures else rest
        group = groups.setdefault(key, Group(shown))
        group.pairs.setdefault(pair_id)
        if file:
            group.files.setdefault(file)
    return list(groups.values())


def kind_of(pair_id: str, reason: str) -> str:
    """What a pair's failure has in common with those of other pairs: its words without names, files and figures."""
    return FIGURE.sub("\0", _parts(reason, ())[1].replace(pair_id, "\0"))


def _parts(text: str, known: Sequence[str]) -> tuple[str, str, str]:
    """The file that a text begins with, the rest, and the rest without any of the known files."""
    file = next((path for path in known if text.startswith(f"{path}: ")), None)
    if file is None:
        found = PATH.match(text)
        file = found[0] if found else ""
    rest = text[len(file) + 2 :] if file else text
    kind = rest
    for path in known:
        kind = kind.replace(path, "\0")
    return file, rest, kind
