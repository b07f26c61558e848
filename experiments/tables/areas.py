"""Area below the trade-off of every method, and its difference to one of them."""

from __future__ import annotations

from memorization_suite.experiments.evidence.areas import Areas
from memorization_suite.experiments.evidence.base import (
    TABLES,
    Cell,
    Listed,
    Table,
    flag,
    number,
)
from memorization_suite.experiments.evidence.runs import Evidence, by_kind


@TABLES.register("areas")
class AreaTable(Table):
    """A row a series, the largest area first."""

    x: str = flag("copy", "what is to be low")
    y: str = flag("alignment", "what is to be high")
    series: tuple[str, ...] = flag((), "methods with settings (default a series a method)")
    against: str = flag("", "the series that the others are compared with (default the best)")
    kinds: bool = flag(False, "areas by kind of memorization, too, each in its own box")

    def list(self, evidence: Evidence) -> Listed:
        areas = Areas.of(evidence, self.x, self.y, self.series)
        found = {name: areas.area(name) for name in areas.series}
        order = sorted(found, key=lambda name: -found[name].value)
        against = self.against or order[0]
        if against not in found:
            raise ValueError(f"there is no series {against!r}: {', '.join(order)}")
        rows = []
        for name in order:
            row = {
                "method": Cell(name),
                "settings": Cell(str(areas.series[name].x.shape[1])),
                "area": number(found[name]),
            }
            change = areas.difference(name, against)
            row[f"difference to {against}"] = Cell("") if name == against else number(change)
            rows.append(row)
        if self.kinds:
            self.add_kinds(rows, order, evidence)
        box = areas.box
        caption = (
            f"Share of the box that a method's settings dominate: {self.x} from {box.left:g} to "
            f"that without a mitigation, {box.right:.3f}; {self.y} from {box.floor:.3f}, the "
            f"worst of all settings, to {box.top:.3f}, the best. 95 % intervals and paired "
            f"differences over {areas.prompts} prompts, those of one training image drawn "
            f"together; {', '.join(evidence.models)}."
            + " Areas of a kind: in the box of its own prompts."
            * self.kinds
        )
        return Listed(rows, caption)

    def add_kinds(self, rows: list[dict[str, Cell]], order: list[str], evidence: Evidence) -> None:
        """A column a kind of memorization; none where the settings leave no box."""
        for kind, prompts in by_kind(evidence.select("no_mitigation")[0]).items():
            if kind == "all":
                continue
            try:
                areas = Areas.of(evidence, self.x, self.y, order, prompts)
            except ValueError:
                continue
            for row, name in zip(rows, order):
                row[f"area, {kind}"] = number(areas.area(name))
