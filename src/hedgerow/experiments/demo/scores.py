"""Scores of the trained model beside those it must beat."""

import dataclasses
from collections.abc import Mapping, Sequence

from hedgerow.evaluate.runner import Figure


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """One figure of the trained model beside the untrained model's and the best constant reply's."""

    trained: Figure
    untrained: Figure
    constant: Figure

    def to_dict(self) -> dict[str, float]:
        """Return the figures as plain data."""
        return {
            "value": self.trained.value,
            "low": self.trained.low,
            "high": self.trained.high,
            "untrained": self.untrained.value,
            "constant": self.constant.value,
            "n": self.trained.n,
        }


def side_by_side(sides: Sequence[Mapping[str, Figure]]) -> dict[str, Scores]:
    """Join the figures of trained model, untrained model and constant, by name."""
    return {name: Scores(*(side[name] for side in sides)) for name in sides[0]}


def score_lines(title: str, scores: Mapping[str, Scores]) -> str:
    """Return a table of scores as text."""
    lines = [f"{title:28}{'trained':>9}  {'95 % interval':16}{'constant':>9}{'untrained':>10}{'n':>6}"]
    for name, item in scores.items():
        interval = f"[{item.trained.low:.3f}, {item.trained.high:.3f}]"
        lines.append(
            f"{name:28}{item.trained.value:>9.3f}  {interval:16}{item.constant.value:>9.3f}"
            f"{item.untrained.value:>10.3f}{item.trained.n:>6}"
        )
    return "\n".join(lines)
