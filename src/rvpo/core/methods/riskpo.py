"""RiskPO: risk-sensitive across questions, where RVPO is risk-sensitive across the channels of one completion.

*RiskPO: Risk-based Policy Optimization via Verifiable Reward for LLM Post-Training*, arXiv 2510.00911. B consecutive
questions (groups) form a bundle. The i-th completions of its questions form paper i, whose score S is the sum of their
B rewards: a graded signal from 0/1 rewards, to which hard questions still contribute. With quantile levels a < b
(``lower``, ``upper``), the quantiles q_a, q_b of S, and w = ``tail_weight``::

    range    R = [(S - q_a)^+ - (S - q_b)^+ + q_a - q_b] / (b - a)
    tail     T = -(q_a - S)^+ / a                                     (``seek``: (S - q_b)^+ / (1 - b))
    paper    A = (R + w T) / (1 + w) / std(S)

A is flat above q_b, so that solved questions give no further gain, and steepest below q_a. Credit turns a paper's A
into the advantages of its B completions.

**State.** The quantiles of S over the training run, tracked by stochastic approximation on a grid of levels::

    q_i <- q_i + quantile_lr * (LEVELS_i - share of the batch's papers with S < q_i)

as a list of floats (JSON keeps all their bits): None at first, then the quantiles of all papers of the first batch, and
so on. A batch is compared with the quantiles from before it, the first batch with each bundle's own. a and b are looked
up at the closest level. Tracked quantiles of constant scores may cross by up to ``quantile_lr``.

**Missing** (NaN). A completion that was not scored has advantage 0. In its paper's sum, the mean of its question
replaces it. A paper without any scored completion is dropped. A question without any scored completion joins no bundle.
If questions of a bundle differ in size, the smallest decides the number of papers; further completions have advantage
0.

With ``riskpo_eps=1e-6, std_floor=0, leftover="sum"`` this is the arithmetic of the released code, in all of its modes.
There, std(S) = 0 divides by eps: under tracked quantiles such a bundle gets advantages near 1e6. Our ``std_floor``
avoids that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rvpo.core.channels import State
from rvpo.core.checks import require, require_number
from rvpo.core.groups import Groups
from rvpo.core.lazy import Tensor, torch
from rvpo.core.methods.base import Batch, Method, Outcome, Paper, outcome_of
from rvpo.core.methods.grpo import GRPO
from rvpo.errors import ConfigError, RewardError

LEVELS = tuple(i / 20 for i in range(1, 20))  # 0.05 … 0.95
QUANTILES = ("track", "batch", "mix")
CREDIT = ("uniform", "std", "score", "deviation")
BASELINE = ("none", "plain", "anchored")
LEFTOVER = ("scale", "sum", "drop")
FLAT_QUESTION = 1e-3  # a question with at most this std has no contrast: credit "std" divides by 1 instead


@dataclass(frozen=True)
class RiskPO(Method):
    """``riskpo``: risk across questions. The defaults are the paper's levels and the released script's other values.

    Attributes:
        bundle_size: B, questions of a bundle.
        lower: quantile level a.
        upper: quantile level b; 0.8 in the paper, 0.9 in the released script for MATH and GSM8K.
        tail_weight: w >= 0; with 0 only the range term is left.
        seek: True replaces the lower tail by the upper one. Known to collapse, kept for ablation.
        quantiles: ``"track"`` (over the run), ``"batch"`` (of each bundle's own papers) or ``"mix"`` (their mean).
        credit: how a paper's A is shared. ``"uniform"``: each completion gets A. ``"std"``: A divided by the std of the
            question's rewards (by 1 if that is at most 1e-3). ``"score"``: 0.5 A if the reward is above 0, otherwise
            1.5 A. ``"deviation"``: in proportion to the reward's deviation from the question's mean, or A / B if these
            cancel to within ``riskpo_eps``. Shares can be negative, and large if deviations nearly cancel.
        normalise: divide by the std (ddof 1) of the bundle's papers.
        anchored: keep the constant q_a - q_b of the range term.
        baseline: what is subtracted from the numerators of both terms (the range term alone under ``seek``): their
            integral over the tracked quantile curve, 0 on the first batch. ``"anchored"`` includes q_a - q_b,
            ``"plain"`` does not, ``"none"`` subtracts nothing.
        quantile_lr: step of the tracking, >= 0, in units of S.
        leftover: what to do with the last b < B questions of a batch. ``"scale"``: a smaller bundle with S times B / b,
            in the unit of the tracked quantiles (its spread is somewhat wider). ``"sum"``: the same unscaled, as
            released. ``"drop"``: advantage 0, not tracked.
        riskpo_eps: number added to every denominator, in its unit.
        std_floor: a bundle whose std is below it, in units of S, is divided by 1. With 0 it is divided by
            ``riskpo_eps``, as released.
        score: the method that gives each completion a score: an object such as ``rvpo.RVPO(2.0)``; in text and mappings
            its spelling, as in ``riskpo:score={name:rvpo,k:2}``. The default is the weighted sum of raw rewards, GRPO
            with ``unscored="left_out"``. A rule over channels combines both kinds of risk. Rules over z-scores see only
            differences within a group, so questions then differ only in spread.

    Raises:
        ConfigError: a value cannot work.

    Example:
        >>> import torch, rvpo
        >>> rewards = torch.tensor([[1.0, 0.2], [0.6, 0.9], [0.3, 1.0], [0.1, 0.0]])  # correctness, format
        >>> out = rvpo.advantages(rewards, num_generations=2, method=rvpo.RiskPO(bundle_size=2), state={})
        >>> [round(a, 2) for a in out.advantages.tolist()]
        [0.0, -6.67, 0.0, -1.67]
    """

    name: ClassVar[str] = "riskpo"
    summary: ClassVar[str] = "risk across questions instead of channels (RiskPO)"
    by_sums: ClassVar[bool] = True
    paper: ClassVar[Paper | None] = Paper(
        "RiskPO: Risk-based Policy Optimization via Verifiable Reward for LLM Post-Training", "2510.00911", year=2025
    )
    own_whiten: ClassVar[str] = "none"

    bundle_size: int = 5
    lower: float = 0.2
    upper: float = 0.8
    tail_weight: float = 1.5
    seek: bool = False
    quantiles: str = "track"
    credit: str = "std"
    normalise: bool = True
    anchored: bool = True
    baseline: str = "none"
    quantile_lr: float = 0.1
    leftover: str = "scale"
    riskpo_eps: float = 1e-6
    std_floor: float = 1e-3
    score: Method = field(default_factory=lambda: GRPO(unscored="left_out"))

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not isinstance(self.score, Method) or isinstance(self.score, RiskPO):
            raise ConfigError(
                f"score is {self.score!r}; expected another method as an object, such as rvpo.RVPO(2.0) or "
                "rvpo.GRPO(), which is one reward or the weighted sum of several. In text: riskpo:score=gdpo"
            )
        super().__post_init__()
        if not isinstance(self.bundle_size, int) or isinstance(self.bundle_size, bool) or self.bundle_size < 1:
            raise ConfigError(f"bundle_size is {self.bundle_size!r}; expected a whole number of questions from 1 on")
        require_number("lower", self.lower, 1)
        require_number("upper", self.upper, 1)
        if self.lower == 0 or _nearest(self.lower) >= _nearest(self.upper):
            raise ConfigError(
                f"lower is {self.lower!r} and upper {self.upper!r}; expected levels 0 < lower < upper < 1 that are "
                "closest to two different ones of the tracked levels 0.05, 0.1, … 0.95: move them apart"
            )
        for name in ("tail_weight", "quantile_lr", "riskpo_eps", "std_floor"):
            require_number(name, getattr(self, name), math.inf)
        for name in ("seek", "normalise", "anchored"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected True and False")
        require("quantiles", self.quantiles, QUANTILES)
        require("credit", self.credit, CREDIT)
        require("baseline", self.baseline, BASELINE)
        require("leftover", self.leftover, LEFTOVER)
        if self.riskpo_eps == 0 and self.std_floor == 0:
            raise ConfigError("riskpo_eps and std_floor are both 0, so equal papers divide by 0: set one above 0")

    @classmethod
    def from_options(cls, options: Mapping[str, Any], parse: Callable[[Any], Method]) -> RiskPO:
        """Build from plain options, in which ``score`` is spelled like any method."""
        if "score" not in options:
            return cls(**options)
        return cls(**{**options, "score": parse(options["score"])})

    @property
    def own_dead_channels(self) -> str:  # type: ignore[override]
        """``dead_channels`` of the scoring method."""
        return self.score.own_dead_channels

    @property
    def uses_z(self) -> bool:  # type: ignore[override]
        """As the method that scores does."""
        return self.score.uses_z

    @property
    def remembers(self) -> bool:
        """Quantiles follow the run."""
        return True

    @property
    def uses_reliability(self) -> bool:  # type: ignore[override]
        """As the method that scores does."""
        return self.score.uses_reliability

    @property
    def needs_progress(self) -> bool:
        """As the method that scores does."""
        return self.score.needs_progress

    @property
    def names_channels(self) -> tuple[str, ...]:
        """Names of channels in the options of the scoring method."""
        return self.score.names_channels

    @property
    def traits(self) -> tuple[str, ...]:
        """Advantages depend on which questions form a bundle."""
        return ("bundles",)

    def risk(self, progress: float | None) -> float:
        """Return the risk of the scoring method."""
        return self.score.risk(progress)

    def __call__(self, batch: Batch, state: State) -> Outcome:
        """Score every completion by the scoring method, then bundle the questions."""
        scored = outcome_of(self.score, batch, state.get("score", {}))
        missing = ~(batch.weights * ~batch.scores.missing > 0).any(-1)
        scores = scored.aggregated.masked_fill(missing, torch.nan)
        # Bundles and quantiles need the scores of all ranks, one per completion.
        every, own = batch.shards.joined(scores[:, None])
        result = riskpo(every[:, 0], batch.shards.grouped(batch.groups), self, state.get("quantiles"))
        new = {"score": scored.state, "quantiles": result.state}
        metrics = {**scored.metrics, **result.metrics}
        takes_part = result.papers[own] >= 0
        return Outcome(result.advantages[own], scored.responsibilities, takes_part, state=new, metrics=metrics)


@dataclass(frozen=True)
class RiskPOResult:
    """Result of :func:`riskpo`. Tensors are on the device of the scores.

    Attributes:
        advantages: (N,) in the dtype of the scores; 0 for completions without a paper or without a score.
        papers: (N,) int64, the paper of each completion, -1 without a paper.
        paper_scores: (papers,) float64, S of each paper, bundle by bundle.
        paper_bundles: (papers,) int64, the bundle of each paper.
        state: the tracked quantiles after this batch, for the next one; see ``LEVELS``.
        metrics: ``riskpo/quantile_lower`` and ``…_upper`` (tracked, after this batch), ``riskpo/lower_tail`` and
            ``…/upper_tail`` (share of papers below q_a and above q_b as used on this batch), ``riskpo/flat_bundles``
            (share of bundles whose std is below ``std_floor``). NaN where the batch has no paper.
    """

    advantages: Tensor
    papers: Tensor
    paper_scores: Tensor
    paper_bundles: Tensor
    state: list[float] | None
    metrics: dict[str, float]


def riskpo(scores: Tensor, groups: Groups, config: RiskPO, state: Sequence[float] | None = None) -> RiskPOResult:
    """Return RiskPO advantages for one score per completion, and the tracked quantiles after this batch.

    Args:
        scores: (N,) floating point; NaN = missing. Several rewards are aggregated to one first.
        groups: groups of completions that answer the same question. Bundles take groups by first appearance.
        config: the options.
        state: state after the previous batch, also from a checkpoint; None for the first batch.

    Raises:
        RewardError: ``scores`` does not have one finite number or NaN per row.
        ConfigError: ``state`` does not have one finite number per level.
    """
    _check(scores, groups, state)
    wide = torch.float32 if scores.device.type == "mps" else torch.float64
    r = scores.detach().to(wide)
    bundle, slot, turn, count = _seats(r, groups, config)
    seated = bundle >= 0
    seat = bundle[seated], slot[seated], turn[seated]
    # (bundles, B, G): every completion at its seat; NaN if it was not scored, or if the seat is empty.
    desk = r.new_full((count, config.bundle_size, int(turn.max()) + 1), torch.nan)
    taken = torch.zeros_like(desk, dtype=torch.bool)
    desk[seat], taken[seat] = r[seated], True

    mean = desk.nanmean(2, keepdim=True)
    questions = taken[..., 0].to(wide).sum(1, keepdim=True)  # (bundles, 1): B, except for the leftover
    smallest = taken.sum(2).masked_fill(~taken[..., 0], desk.shape[2]).amin(1, keepdim=True)
    is_paper = (torch.arange(desk.shape[2], device=r.device) < smallest) & (~desk.isnan()).any(1)
    filled = torch.where(desk.isnan(), mean, desk).masked_fill(~taken, 0.0)
    scale = config.bundle_size / questions if config.leftover == "scale" else 1.0
    s = (filled.sum(1) * scale).masked_fill(~is_paper, torch.nan)  # (bundles, G)

    q_low, q_high = _quantiles(s, config, state)
    paper, std = _paper_advantage(s, q_low, q_high, config, state)
    paid = is_paper[:, None] & ~desk.isnan()
    given = (paper[:, None] * _credit(desk, mean, questions[..., None], config)).masked_fill(~paid, 0.0)
    number = (is_paper.flatten().cumsum(0) - 1).view_as(is_paper).masked_fill(~is_paper, -1)
    advantages, papers = torch.zeros_like(r), torch.full_like(groups.index, -1)
    advantages[seated], papers[seated] = given[seat], number[seat[0], seat[2]]

    new_state = _track(s[is_paper], config, state)
    tracked = [math.nan] * len(LEVELS) if new_state is None else new_state
    return RiskPOResult(
        advantages=advantages.to(scores.dtype),
        papers=papers,
        paper_scores=s[is_paper],
        paper_bundles=is_paper.nonzero()[:, 0],
        state=new_state,
        metrics={
            "riskpo/quantile_lower": tracked[_nearest(config.lower)],
            "riskpo/quantile_upper": tracked[_nearest(config.upper)],
            "riskpo/lower_tail": (s < q_low)[is_paper].to(wide).mean().item(),
            "riskpo/upper_tail": (s > q_high)[is_paper].to(wide).mean().item(),
            "riskpo/flat_bundles": (std < config.std_floor).to(wide).mean().item(),
        },
    )


def _check(scores: Tensor, groups: Groups, state: Sequence[float] | None) -> None:
    infinite = scores.isinf().sum().item()
    if scores.shape != groups.index.shape or not scores.is_floating_point() or not scores.numel() or infinite:
        raise RewardError(
            f"scores is a {scores.dtype} tensor of shape {tuple(scores.shape)} with {infinite} infinite; expected "
            f"floating point of shape {tuple(groups.index.shape)}, not empty, finite, with NaN = missing"
        )
    if state is not None and not (len(state) == len(LEVELS) and all(map(math.isfinite, state))):
        raise ConfigError(
            f"the tracked quantiles are {state!r}; expected {len(LEVELS)} finite numbers: resume from a checkpoint "
            "of a RiskPO run, or start with None"
        )


def _seats(r: Tensor, groups: Groups, config: RiskPO) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return each completion's bundle (-1: none), its question's place in it, and its place within the question."""
    rows = torch.arange(r.shape[0], device=r.device)
    first = groups.min(rows[:, None].to(r.dtype))[:, 0]
    scored = groups.max((~r.isnan())[:, None].to(r.dtype))[:, 0] > 0
    order = first.masked_fill(~scored, torch.inf).argsort()
    place = torch.empty_like(order)
    place[order] = torch.arange(groups.count, device=r.device)
    kept = int(scored.sum())
    if config.leftover == "drop":
        kept -= kept % config.bundle_size
    bundle = (place // config.bundle_size).masked_fill(place >= kept, -1)

    by_group = groups.index.argsort(stable=True)
    size = groups.index.bincount(minlength=groups.count)
    turn = torch.empty_like(rows)
    turn[by_group] = rows - (size.cumsum(0) - size)[groups.index[by_group]]
    return bundle[groups.index], (place % config.bundle_size)[groups.index], turn, -(-kept // config.bundle_size)


def _quantiles(s: Tensor, config: RiskPO, state: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Return q_a and q_b for every bundle, (bundles, 1) each."""
    if not s.numel():  # torch has no quantile of nothing
        return s.new_empty(0, 1), s.new_empty(0, 1)
    own = torch.nanquantile(s, s.new_tensor([config.lower, config.upper]), dim=1)[..., None]
    if state is None or config.quantiles == "batch":
        return own[0], own[1]
    tracked = s.new_tensor([state[_nearest(config.lower)], state[_nearest(config.upper)]])[:, None, None].expand_as(own)
    q = tracked if config.quantiles == "track" else (tracked + own) / 2
    return q[0], q[1]


def _paper_advantage(
    s: Tensor, q_low: Tensor, q_high: Tensor, config: RiskPO, state: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    """Return A of every paper (bundles, G), and the std of S (bundles, 1), which is 1 for a single paper."""
    range_base, tail_base = _baseline(s, config, state)
    spread = (s - q_low).clamp(min=0) - (s - q_high).clamp(min=0) + (q_low - q_high if config.anchored else 0.0)
    a = (spread - range_base) / (config.upper - config.lower + config.riskpo_eps)
    if config.seek:
        tail = (s - q_high).clamp(min=0) / (1 - config.upper + config.riskpo_eps)
    else:
        tail = (-(q_low - s).clamp(min=0) - tail_base) / (config.lower + config.riskpo_eps)
    a = (config.tail_weight * tail + a) / (config.tail_weight + 1)
    std = _nanstd(s)
    if config.normalise:
        a = a / (std.masked_fill(std < config.std_floor, 1.0) + config.riskpo_eps)
    return a, std


def _baseline(s: Tensor, config: RiskPO, state: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Return the integrals of both numerators over the tracked quantile curve, by trapezoids over the levels."""
    if state is None or config.baseline == "none":
        return s.new_zeros(()), s.new_zeros(())
    q, levels = s.new_tensor(state), s.new_tensor(LEVELS)
    low, high = q[_nearest(config.lower)], q[_nearest(config.upper)]
    spread = (q - low).clamp(min=0) - (q - high).clamp(min=0) + (low - high if config.baseline == "anchored" else 0.0)
    return torch.trapezoid(spread, levels), torch.trapezoid(-(low - q).clamp(min=0), levels)


def _credit(desk: Tensor, mean: Tensor, questions: Tensor, config: RiskPO) -> Tensor:
    """Return the factors from a paper's A to the advantages of its completions, broadcast to (bundles, B, G)."""
    if config.credit == "uniform":
        return torch.ones_like(desk)
    if config.credit == "score":
        return torch.where(desk > 0, 0.5, 1.5).to(desk.dtype)
    if config.credit == "std":
        std = _nanstd(desk)
        return 1 / (std.masked_fill(std <= FLAT_QUESTION, 1.0) + config.riskpo_eps)
    deviation = (desk - mean).nan_to_num(nan=0.0)
    total = deviation.sum(1, keepdim=True)
    cancels = total.abs() <= config.riskpo_eps
    return torch.where(cancels, 1 / questions, deviation / total.masked_fill(cancels, 1.0))


def _nanstd(x: Tensor) -> Tensor:
    """Return the sample standard deviation (ddof 1) over the last dimension, kept; 1 for fewer than two values."""
    n = (~x.isnan()).sum(-1, keepdim=True)
    squares = (x - x.nanmean(-1, keepdim=True)).square().nansum(-1, keepdim=True)
    return (squares / (n - 1).clamp(min=1)).sqrt().masked_fill(n < 2, 1.0)


def _track(papers: Tensor, config: RiskPO, state: Sequence[float] | None) -> list[float] | None:
    """Return the tracked quantiles after a batch of papers. A batch without papers changes nothing."""
    if not papers.numel():
        return None if state is None else list(state)
    levels = papers.new_tensor(LEVELS)
    if state is None:
        return torch.quantile(papers, levels).tolist()
    q = papers.new_tensor(state)
    below = (papers < q[:, None]).to(q.dtype).mean(1)
    return (q + config.quantile_lr * (levels - below)).tolist()


def _nearest(level: float) -> int:
    return min(range(len(LEVELS)), key=lambda i: abs(LEVELS[i] - level))
