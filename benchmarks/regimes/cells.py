"""The regimes: a star around one base cell, so that every table row differs from the base in one or two habits."""

from __future__ import annotations

from dataclasses import dataclass, replace

ROLLOUTS = 64  # N = P * G, the same in every cell


@dataclass(frozen=True)
class Cell:
    """One regime: the habits of the warm-started policy, the channels, and how a step samples."""

    name: str
    p_hard: float = 0.72
    """Share of strict demonstrations, hence the initial rate of channel 0, the format."""
    conflict: float = 0.5
    """Rate of a content channel in loose minus that in strict demonstrations."""
    channels: int = 5
    """M, the format included."""
    graded: bool = False
    """A content channel is the fraction of its items given, not whether all are."""
    noise: float = 0.0
    """Probability that the format is observed wrongly in training; evaluation sees the truth."""
    generations: int = 8
    """G; a step has 64 / G prompts."""
    floorless: bool = False
    """Half of the content channels are caps, which an empty reply meets best."""

    def __post_init__(self) -> None:
        if self.floorless and (self.channels != 5 or self.graded):
            raise ValueError(f"{self.name}: floorless is defined for 5 binary channels")
        if ROLLOUTS % self.generations:
            raise ValueError(f"{self.name}: G = {self.generations} does not divide {ROLLOUTS} rollouts")

    @property
    def prompts(self) -> int:
        """P, prompts of a step."""
        return ROLLOUTS // self.generations

    @property
    def habits(self) -> str:
        """Name of the warm start, which noise and group size do not change."""
        kind = "-graded" * self.graded + "-floorless" * self.floorless
        return f"p{self.p_hard:g}-c{self.conflict:g}-M{self.channels}{kind}"


def _star() -> dict[str, Cell]:
    mostly = Cell("p0.72")
    rarely = Cell("p0.25", p_hard=0.25)
    cells = [Cell(f"p{p:g}", p_hard=p) for p in (0.05, 0.1, 0.25, 0.5, 0.72, 0.9)]
    cells += [replace(mostly, name=f"p0.72-c{c:g}", conflict=c) for c in (0.0, 0.25, 0.75, 0.9)]
    cells += [replace(rarely, name=f"p0.25-c{c:g}", conflict=c) for c in (0.0, 0.25, 0.75)]
    # Fourteen channels, or graded ones, which are met in part before they are met in full, outweigh the format sooner:
    # the conflict is set where the mean of the channels keeps the format on some seeds and loses it on others.
    for base, many, graded in ((mostly, 0.3, 0.7), (rarely, 0.15, 0.4)):
        cells += [replace(base, name=f"{base.name}-M2", channels=2)]
        cells += [replace(base, name=f"{base.name}-M15", channels=15, conflict=many)]
        cells += [replace(base, name=f"{base.name}-graded", graded=True, conflict=graded)]
        cells += [replace(base, name=f"{base.name}-G{g}", generations=g) for g in (4, 16)]
        cells += [replace(base, name=f"{base.name}-floorless", floorless=True)]
    cells += [replace(mostly, name=f"p0.72-noise{q:g}", noise=q) for q in (0.1, 0.2)]
    cells += [replace(rarely, name="p0.25-noise0.1", noise=0.1)]
    return {cell.name: cell for cell in cells}


CELLS = _star()
