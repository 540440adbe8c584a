"""``rvpo check``: correct functions pass, and each fault is caught by the property that names it.

``rule`` is a soft minimum with loops that keeps everything. Every function in ``FAULTS`` is this rule with one mistake,
and the test states all required properties that it breaks, no more and no less.
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from rvpo.cli.check import check_command as command
from rvpo.conformance import show
from rvpo.conformance.processes import compare_processes
from rvpo.conformance.properties import DESCRIPTIVE, REQUIRED
from rvpo.conformance.suite import NOT_APPLICABLE, PASS, PROPERTIES, Report, examine, run_checks
from rvpo.conformance.target import TRAITS, Spec
from rvpo.conformance.targets import from_function, parse_options, resolve
from rvpo.core.methods.registry import METHODS
from rvpo.errors import ConfigError, EngineError

NAN = float("nan")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- A correct rule, in pieces ---------------------------------------------------------------------------


def zscores(rewards: Tensor, groups: Tensor) -> Tensor:
    """(N, M), NaN where missing or constant."""
    z = torch.full(rewards.shape, NAN, dtype=torch.float64)
    for g in groups.unique():
        x = rewards[groups == g].double()
        gap = x - x.nanmean(0)
        std = (gap.square().nansum(0) / ((~x.isnan()).sum(0) - 1)).sqrt()
        flat = x.nan_to_num(-torch.inf).amax(0) - x.nan_to_num(torch.inf).amin(0) <= 1e-6 * x.abs().nan_to_num(0).amax(
            0
        )
        z[groups == g] = (gap / std).masked_fill(flat, NAN)
    return z


def soft_min(z: Tensor, k: float) -> Tensor:
    """(N,), NaN where no channel takes part."""
    count = (~z.isnan()).sum(1)
    a = -(torch.logsumexp((-k * z).masked_fill(z.isnan(), -torch.inf), 1) - count.log()) / k
    return a.masked_fill(count == 0, NAN)


def whitened(a: Tensor) -> Tensor:
    """(N,), 0 where NaN."""
    x = a[~a.isnan()]
    std = x.std() if len(x) > 1 else torch.tensor(0.0)
    return ((a - x.mean()) / (std + 1e-6)).nan_to_num(nan=0.0) if len(x) else torch.zeros_like(a)


def rule(rewards: Tensor, groups: Tensor, k: float = 1.0) -> Tensor:
    return whitened(soft_min(zscores(rewards, groups), k))


# --- The same with one mistake each ----------------------------------------------------------------------


def missing_is_zero(rewards, groups, k=1.0):
    return rule(torch.where(rewards.isnan() & ~rewards.isnan().all(0), 0.0, rewards), groups, k)


def missing_spreads(rewards, groups, k=1.0):
    """The usual mean and std, of which one NaN makes NaN."""
    r = rewards.double()
    z = torch.zeros_like(r)
    for g in groups.unique():
        rows = groups == g
        if rows.sum() > 1:
            std = r[rows].std(0)
            still = r[rows].amax(0) - r[rows].amin(0) <= 1e-6 * r[rows].abs().amax(0)
            z[rows] = ((r[rows] - r[rows].mean(0)) / std).masked_fill(still, 0.0)
    a = -(torch.logsumexp(-k * z, 1) - math.log(z.shape[1])) / k
    return (a - a.mean()) / (a.std() + 1e-6)


def missing_is_lifted(rewards, groups, k=1.0):
    """The sum in place of the mean inside the logarithm: fewer channels, a higher value."""
    z = zscores(rewards, groups)
    none = z.isnan().all(1)
    a = -torch.logsumexp((-k * z).masked_fill(z.isnan(), -torch.inf), 1) / k
    return whitened(a.masked_fill(none, NAN))


def missing_channel_is_average(rewards, groups, k=1.0):
    z = zscores(rewards, groups)
    return whitened(soft_min(torch.where(rewards.isnan() & ~rewards.isnan().all(1)[:, None], 0.0, z), k))


def missing_row_is_whitened(rewards, groups, k=1.0):
    """Whoever has no reward has a value of 0, which the whitening lifts; all zeros stay zeros."""
    z = zscores(rewards, groups)
    a = torch.where(rewards.isnan().all(1), 0.0, soft_min(z, k))
    return whitened(a)


def whole_batch(rewards, groups, k=1.0):
    """Group means, but spreads of the whole batch: how others scored decides which channel counts."""
    r = rewards.double()
    z = zscores(rewards, groups)
    for j in range(r.shape[1]):
        x = r[~r[:, j].isnan(), j]
        own = torch.full_like(r[:, j], NAN)
        for g in groups.unique():
            rows = (groups == g) & ~r[:, j].isnan()
            own[rows] = r[rows, j] - r[rows, j].mean()
        z[:, j] = torch.where(z[:, j].isnan(), NAN, own / (x.std() + 1e-6) if len(x) > 1 else own)
    return whitened(soft_min(z, k))


def no_group_mean(rewards, groups, k=1.0):
    """Z-scores over the batch: easy prompts are good."""
    return rule(rewards, torch.zeros_like(groups), k)


def column_weights(rewards, groups):
    z = zscores(rewards, groups)
    w = (1.0 + torch.arange(z.shape[1], dtype=z.dtype)).masked_fill(z.isnan(), 0.0)
    total = w.sum(1)
    return whitened(((w * z.nan_to_num(nan=0.0)).sum(1) / total).masked_fill(total == 0, NAN))


def first_is_baseline(rewards, groups):
    """A completion is compared with the first of its group."""
    a = soft_min(zscores(rewards, groups), 1.0)
    out = torch.zeros_like(a)
    for g in groups.unique():
        rows = (groups == g).nonzero()[:, 0]
        out[rows] = a[rows] - (a[rows[0]] if bool(a[rows[0]].isfinite()) else 0.0)
    return out.nan_to_num(nan=0.0)


def groups_as_indices(rewards, groups, k=1.0):
    torch.zeros(len(groups))[groups]
    return rule(rewards, groups, k)


def overflows(rewards, groups, k=1.0):
    """The formula as it stands on paper, in float32."""
    z = zscores(rewards, groups).float()
    count = (~z.isnan()).sum(1)
    mean = torch.exp(-k * z).nansum(1) / count.clamp(min=1)
    a = (-mean.log() / k).masked_fill(count == 0, NAN).double()
    return whitened(a) if count.min() == 0 else (a - a.mean()) / (a.std() + 1e-6 if len(a) > 1 else 1.0)


def soft_max(rewards, groups, k=1.0):
    return whitened(-soft_min(-zscores(rewards, groups), k))


def never_below_one(rewards, groups, k=1.0):
    return rule(rewards, groups, max(k, 1.0))


def k_turned_round(rewards, groups, k=1.0):
    """Hands out its value before whitening, and takes 1/k for k between 0.05 and 20."""
    a = soft_min(zscores(rewards, groups), 1 / k if 0.05 < k < 20 else k)
    return {"advantages": whitened(a), "aggregated": a.nan_to_num(nan=0.0)}


def in_place(rewards, groups):
    rewards.sub_(0.25)
    return rule(rewards, groups)


def fills_in_place(rewards, groups):
    missing = rewards.isnan()
    out = rule(rewards, groups)
    rewards[missing] = 0.0
    return out


def noise_counts(rewards, groups):
    """Constant is only what has a spread of exactly 0."""
    r = rewards.double()
    z = torch.full_like(r, NAN)
    for g in groups.unique():
        for j in range(r.shape[1]):
            rows = (groups == g) & ~r[:, j].isnan()
            if rows.sum() > 1 and r[rows, j].std() > 0:
                z[rows, j] = (r[rows, j] - r[rows, j].mean()) / r[rows, j].std()
    return whitened(soft_min(z, 1.0))


def half_precision(rewards, groups):
    """Numbers of type float32 are taken for good, others are halved first."""
    return rule(rewards if rewards.dtype == torch.float32 else rewards.to(torch.float16).sin(), groups)


def alone_is_nan(rewards, groups):
    out = rule(rewards, groups)
    return torch.where(
        groups.bincount(minlength=int(groups.max()) + 1)[groups] == 1 if groups.min() >= 0 else False, NAN, out
    )


def raw_exponent(rewards, groups):
    """Divides by the square of the largest reward, in float16: next to nothing, or more than there is."""
    big = rewards.nan_to_num(nan=0.0).abs().max()
    return torch.where(big.half().isinf(), NAN, rule(rewards, groups))


def upside_down(rewards, groups):
    return -rule(rewards, groups)


def nothing(rewards, groups):
    return torch.zeros(len(groups))


def offset(rewards, groups):
    """Not even centred: where all are equal, all are reinforced."""
    return rule(rewards, groups) + torch.where(rewards.isnan().all(1), 0.0, 0.5) * float(len(groups) > 0)


def noisy(rewards, groups):
    return rule(rewards, groups) + 1e-9 * torch.rand(len(groups), dtype=torch.float64)


def counts_spread(rewards, groups):
    """Mean minus variance, undeclared."""
    z = zscores(rewards, groups)
    mean = z.nanmean(1)
    return whitened(mean - (z - mean[:, None]).square().nanmean(1))


FAULTS: dict[Callable, set[str]] = {
    missing_is_zero: {"missing-not-0", "missing-middle", "missing-row"},
    missing_spreads: {"missing-contained", "missing-channel", "missing-row"},
    missing_is_lifted: {"missing-middle"},
    missing_channel_is_average: {"missing-channel"},
    missing_row_is_whitened: {"missing-row"},
    whole_batch: {"group-baseline", "groups-apart"},
    no_group_mean: {"group-baseline", "groups-apart", "no-signal"},
    column_weights: {"channel-order"},
    first_is_baseline: {"row-order", "missing-row"},
    groups_as_indices: {"group-names"},
    overflows: {"k-finite", "k-to-inf"},
    soft_max: {"k-to-inf"},
    never_below_one: {"k-to-0"},
    k_turned_round: {"k-monotone"},
    in_place: {"inputs-kept"},
    fills_in_place: {"inputs-kept"},
    noise_counts: {"rounding"},
    half_precision: {"precision"},
    alone_is_nan: {"alone-finite"},
    raw_exponent: {"extreme-rewards"},
    upside_down: {"direction", "dominance", "missing-middle"},
    nothing: {"direction"},
    offset: {"no-signal"},
    noisy: {"deterministic"},
    counts_spread: {"dominance"},
}


def examined(function: Callable, seeds: int = 1, **options: object) -> Report:
    if "k_name" not in options and "k" in function.__code__.co_varnames[: function.__code__.co_argcount]:
        options["k_name"] = "k"
    return run_checks(from_function(function, Spec(function.__name__, **options)), seeds=seeds)


def names(report: Report) -> set[str]:
    return {finding.asked.name for finding in report.failures}


def test_a_correct_rule_passes():
    report = examined(rule, seeds=3)
    assert names(report) == set()
    not_asked = {f.asked.name: f.remark for f in report.findings if f.asked.required and f.status == NOT_APPLICABLE}
    assert set(not_asked) == {"padding", "length", "missing-refused", "k-monotone", "processes"}
    assert "aggregated" in not_asked["k-monotone"]


@pytest.mark.parametrize("function", FAULTS, ids=lambda function: function.__name__)
def test_each_fault_is_caught_by_its_property_and_no_other(function: Callable):
    report = examined(function)
    assert names(report) == FAULTS[function]
    assert not report.passed


# --- By tokens, as verl calls ----------------------------------------------------------------------------


def read(index, config, non_tensor_batch) -> tuple[Tensor, Tensor]:
    columns = [torch.as_tensor(non_tensor_batch[key]) for key in config["gdpo_reward_keys"]]
    ids = {uid: i for i, uid in enumerate(dict.fromkeys(index))}
    return torch.stack(columns, 1), torch.tensor([ids[uid] for uid in index])


def by_tokens(token_level_rewards, response_mask, index, config=None, non_tensor_batch=None):
    tokens = rule(*read(index, config, non_tensor_batch), k=config.get("k", 1.0))[:, None] * response_mask
    return tokens, tokens


def summed_over_tokens(token_level_rewards, response_mask, index, config=None, non_tensor_batch=None):
    """Spreads each channel's z over the response and sums it again before the soft minimum."""
    z = zscores(*read(index, config, non_tensor_batch))
    z = (z[:, None] * response_mask[..., None]).nansum(1).masked_fill(z.isnan(), NAN)
    tokens = whitened(soft_min(z, 1.0))[:, None] * response_mask
    return tokens, tokens


def mean_over_padding(token_level_rewards, response_mask, index, config=None, non_tensor_batch=None):
    tokens, _ = by_tokens(token_level_rewards, response_mask, index, config, non_tensor_batch)
    tokens = tokens / response_mask.shape[1]
    return tokens, tokens


def forgets_the_mask(token_level_rewards, response_mask, index, config=None, non_tensor_batch=None):
    non_tensor_batch.pop("uid")
    tokens = rule(*read(index, config, non_tensor_batch))[:, None].expand(response_mask.shape)
    return tokens, tokens


TOKEN_FAULTS: dict[Callable, set[str]] = {
    by_tokens: set(),
    summed_over_tokens: {"length", "dominance"},
    mean_over_padding: {"padding"},
    forgets_the_mask: {"inputs-kept"},
}


@pytest.mark.parametrize("function", TOKEN_FAULTS, ids=lambda function: function.__name__)
def test_functions_by_tokens(function: Callable):
    report = examined(function, style="tokens", k_name="k" if function is by_tokens else None)
    assert names(report) == TOKEN_FAULTS[function]
    for name in ("padding", "length", "channel-order", "missing-contained"):
        assert report[name].status != NOT_APPLICABLE
    assert (report["k-to-inf"].status == PASS) is (function is by_tokens)


def test_every_required_property_has_a_function_that_it_catches():
    caught = set().union(*FAULTS.values(), *TOKEN_FAULTS.values(), {"output", "missing-refused"})
    assert caught == {asked.name for asked in REQUIRED}


# --- What a function may return, raise and declare -------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            lambda rewards, groups: rule(rewards, groups)[:, None],
            r"shape \(\d+, 1\); expected floating point of shape",
        ),
        (lambda rewards, groups: rule(rewards, groups).long(), "torch.int64"),
        (lambda rewards, groups: None, "NoneType"),
        (lambda rewards, groups: {}["reward"], "KeyError: 'reward'"),
        (lambda rewards, groups: exit(3), "SystemExit: 3"),
    ],
)
def test_what_is_no_advantage_is_a_finding_and_no_crash(function: Callable, said: str):
    report = examined(function)
    assert names(report) == {"output"}
    assert report["output"].fault.kind == "raised"
    torch.testing.assert_close(report["output"].example.rewards, report["output"].example.rewards.round())
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(report["output"].fault.what)
    rest = [finding for finding in report.findings if finding.asked.name != "output"]
    assert {finding.status for finding in rest} == {NOT_APPLICABLE}


def test_a_lift_by_fewer_channels_is_seen_without_a_named_k():
    """ln(3 / 1) at k = 1 is more than what lies between the second best and the best of five, 0.63."""
    assert names(examined(missing_is_lifted, k_name=None)) == {"missing-middle"}


def test_numpy_and_lists_are_fine():
    assert examined(lambda rewards, groups: rule(rewards, groups).numpy()).passed
    assert examined(lambda rewards, groups: rule(rewards, groups).tolist()).passed


def test_failing_batches_are_small():
    """Two completions show that a constant is amplified, that a NaN spreads, and that order matters."""
    for function, name, rows in ((noise_counts, "rounding", 2), (missing_spreads, "missing-contained", 3)):
        example = examined(function)[name].example
        assert len(example.groups) <= rows
        assert example.rewards.shape[1] == 1
    example = examined(column_weights)["channel-order"].example
    assert len(example.groups) <= 3
    assert example.rewards.shape[1] == 2


def test_a_declared_trait_excuses_what_fails_and_nothing_else():
    assert names(examined(counts_spread)) == {"dominance"}
    report = examined(counts_spread, traits=("spread-penalty",))
    assert report.passed
    assert report["dominance"].status == NOT_APPLICABLE
    assert "not monotone" in report["dominance"].remark
    # A trait that was not needed does not turn a property off.
    assert examined(rule, traits=("spread-penalty",))["dominance"].status == PASS
    assert names(examined(upside_down, traits=("spread-penalty",))) == {"direction", "missing-middle"}
    assert names(examined(no_group_mean, traits=("shared-weights",))) == {"group-baseline", "no-signal"}


def test_refusing_missing_rewards_must_be_done():
    def refuses(rewards, groups):
        if rewards.isnan().any():
            raise ValueError("a reward is missing")
        return rule(rewards, groups)

    assert names(examined(refuses)) >= {"missing-contained", "missing-row"}
    report = examined(refuses, traits=("complete-only",))
    assert report.passed
    assert report["missing-refused"].status == PASS
    assert names(examined(rule, traits=("complete-only",))) == {"missing-refused"}


# --- Our own methods -------------------------------------------------------------------------------------


SPELLINGS = [*METHODS, "rvpo:dead_channels=keep", "rvpo:k=adaptive(target=0.55)", "lift:kappa=3,margin=0.1"]
OURS = [*map(Spec, SPELLINGS), Spec("rvpo", options={"missing": "error"})]


@pytest.mark.parametrize("spec", OURS, ids=lambda spec: f"{spec.name} {dict(spec.options) or ''}")
def test_our_methods_keep_every_required_property(spec: Spec):
    report = run_checks(resolve(spec), seeds=1)
    assert names(report) == set()
    excused = {f.asked.name for f in report.findings if f.asked.required and "declared" in f.remark}
    expected = {
        "grpo": {"missing-middle", "missing-not-0"},  # a missing reward counts as 0, as in TRL
        "rvpo_explicit": {"dominance"},
        "tchebycheff": {"group-baseline"},
        "smooth_tchebycheff": {"group-baseline"},
        "riskpo": {"groups-apart"},
        "saw": {"group-baseline"},
        "verpo": {"group-baseline"},
        "gd2po": {"groups-apart"},
        "rvpo:k=adaptive(target=0.55)": {"groups-apart"},
    }.get(spec.name, set())
    if spec.options:
        expected = {f.asked.name for f in report.findings if f.asked.name.startswith("missing-")} - {
            "missing-refused",
            "missing-as-average",
        }
    assert excused == expected


def test_our_traits_are_traits():
    traits = {name: resolve(Spec(name)).traits for name in METHODS}
    assert set().union(*traits.values()) <= set(TRAITS)
    assert {name: set(found) for name, found in traits.items() if found} == {
        "grpo": {"missing-as-0"},
        "rvpo_explicit": {"spread-penalty"},
        "lift": {"shared-weights"},
        "lift_z": {"shared-weights"},
        "lagrangian": {"shared-weights"},
        "tchebycheff": {"levels"},
        "smooth_tchebycheff": {"levels"},
        "riskpo": {"bundles"},
        "dara": {"shared-weights"},
        "sa_mrpo": {"levels", "shared-weights"},
        "saw": {"levels", "shared-weights"},
        "gd2po": {"filters"},
        "verpo": {"levels"},
        "mgda": {"shared-weights"},
    }
    assert resolve(Spec("rvpo:k=adaptive")).traits == {"adapts"}
    assert resolve(Spec("gdpo", traits=("bundles",))).traits == {"bundles"}


@pytest.mark.parametrize(
    ("spec", "has_k"),
    [
        (Spec("rvpo"), True),
        (Spec("rvpo:dead_channels=keep"), True),
        (Spec("rvpo:k=2"), True),
        (Spec("rvpo", options={"k": 2.0}), True),
        (Spec("rvpo:k=linear(0.5,2)"), False),
        (Spec("gdpo"), False),
    ],
)
def test_limits_of_k_are_checked_where_k_is_a_number(spec: Spec, has_k: bool):
    assert resolve(spec).has_k is has_k


MINE = """
from dataclasses import dataclass
import torch
import rvpo

def cvar(z, p, *, alpha=0.5):
    \"\"\"Mean of the lowest share alpha of the channels that take part.\"\"\"
    order = z.masked_fill(p == 0, torch.inf).argsort(dim=1, stable=True)
    z, p = z.gather(1, order), p.gather(1, order)
    taken = (alpha - (p.cumsum(1) - p)).clamp(min=0).minimum(p)
    return (taken * z).sum(1) / alpha

def forgets_p(z, p, *, alpha=0.5):
    lowest = z.sort(1).values[:, : max(1, int(alpha * z.shape[1]))]
    return lowest.mean(1)

def soft_min(z, p, *, k=1.0):
    return -torch.logsumexp(p.log() - k * z, 1).masked_fill(p.sum(1) == 0, 0.0) / k

@dataclass(frozen=True)
class Spread(rvpo.Method):
    beta: float = 0.5

    @property
    def traits(self):
        return ("spread-penalty",)

    def __call__(self, batch, state):
        p = batch.p
        mean = (p * batch.z).sum(1, keepdim=True)
        return rvpo.Outcome(mean[:, 0] - self.beta * (p * (batch.z - mean).square()).sum(1), p)

@dataclass(frozen=True)
class Unheard(Spread):
    @property
    def traits(self):
        return ("humble",)

built = Spread()

def advantages(rewards, groups, sign=1):
    return sign * rvpo.advantages(rewards, groups).advantages
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("mine") / "my_rules.py"
    path.write_text(MINE)
    return str(path)


@pytest.mark.parametrize("name", ["cvar", "cvar:alpha=0.25", "soft_min", "soft_min:k=2", "Spread", "built"])
def test_methods_of_ones_own_keep_every_required_property(mine: str, name: str):
    report = run_checks(resolve(Spec(f"{mine}:{name}", k_name="k" if name == "soft_min" else None)), seeds=1)
    assert names(report) == set()
    assert (report["k-to-inf"].status == PASS) is (name == "soft_min")
    excused = {f.asked.name for f in report.findings if f.asked.required and "declared" in f.remark}
    assert excused == ({"dominance"} if name in ("Spread", "built") else set())


def test_a_method_that_forgets_the_shares_is_caught_by_missing_rewards(mine: str):
    """A missing channel has z = 0, which the mean of the lowest then counts as an average reward."""
    caught = names(run_checks(resolve(Spec(f"{mine}:forgets_p")), seeds=1))
    assert "missing-channel" in caught
    assert all(name.startswith("missing-") for name in caught)


def test_advantage_functions_are_called_as_before(mine: str):
    assert run_checks(resolve(Spec(f"{mine}:advantages")), seeds=1).passed
    assert not run_checks(resolve(Spec(f"{mine}:advantages", options={"sign": -1})), seeds=1).passed
    with pytest.raises(
        ConfigError, match=r"is not a method \(z, p\) -> A; expected .*my_rules.py:advantages with --opt"
    ):
        resolve(Spec(f"{mine}:advantages:sign=-1"))


def test_options_of_ones_own_methods(mine: str):
    with pytest.raises(ConfigError, match="has no option 'beta'"):
        resolve(Spec(f"{mine}:cvar:beta=1"))
    with pytest.raises(ConfigError, match=r"alpha is in '.*' and in --option alpha=1; set one of them"):
        resolve(Spec(f"{mine}:cvar:alpha=0.5", options={"alpha": 1}))
    with pytest.raises(ConfigError, match="has no option 'k'"):
        resolve(Spec(f"{mine}:cvar", k_name="k"))
    with pytest.raises(ConfigError, match=r"trait of .* is 'humble'; expected one of 'levels'"):
        resolve(Spec(f"{mine}:Unheard"))


def test_descriptions_tell_rules_apart():
    """From the definitions: GRPO normalises a sum of raw rewards in the group, GDPO z-scores over the batch."""
    notes = {}
    for method in ("grpo", "gdpo", "rvpo:dead_channels=keep", "tchebycheff"):
        target = resolve(Spec(method))
        notes[method] = {asked.name: examine(target, asked, 1).holds for asked in DESCRIPTIVE}
    assert (notes["grpo"]["scale-free"], notes["gdpo"]["scale-free"]) == (False, True)
    assert (notes["grpo"]["batch-whitened"], notes["gdpo"]["batch-whitened"]) == (False, True)
    assert (notes["grpo"]["improvement"], notes["gdpo"]["improvement"]) == (True, False)
    assert (notes["gdpo"]["dead-neutral"], notes["rvpo:dead_channels=keep"]["dead-neutral"]) == (True, False)
    assert (notes["gdpo"]["missing-as-average"], notes["tchebycheff"]["missing-as-average"]) == (False, True)


# --- Names, options and the command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            Spec("gdpoo"),
            r"the function to check is 'gdpoo' \(did you mean 'gdpo'\?\); expected a method \(such as lift",
        ),
        (Spec("rvpo:lift"), "the function to check is 'rvpo:lift'; expected the name of a method. Write lift"),
        (Spec("rvpo:rvpo?k=2&whiten=group"), "expected the name of a method. Write rvpo:k=2,whiten=group"),
        (Spec("rvpo:gdpoo"), "method is 'rvpo:gdpoo'; expected rvpo:option=value"),
        (Spec("rvpo:k=-1"), r"k is -1; expected a number in \[0, inf\]"),
        (Spec("rvpo:kk=1"), "method 'rvpo' has no option 'kk'"),
        (Spec("rvpo:k"), "method is 'rvpo:k'; expected rvpo:option=value"),
        (Spec("rvpo:k=2", options={"k": 3}), "k is in 'rvpo:k=2' and in --option k=3; set one of them"),
        (Spec("gdpo", style="tokens"), "called by completions"),
        (Spec("no.such.module:f"), r"no\.such\.module cannot be imported \(ModuleNotFoundError"),
        (Spec("no/such/file.py:f"), r"the file no/such/file\.py does not exist in .*Check the path"),
        (Spec("math:sqrrt"), r"math has no 'sqrrt' \(did you mean 'sqrt'\?\)"),
        (Spec("math:pi"), "math:pi is a float; expected something that can be called"),
        (Spec("textwrap:dedent"), r"takes \(text\), and --style completions calls f\(rewards, groups\)"),
        (Spec("textwrap:dedent", style="auto"), "has the parameters text, from which --style auto cannot find"),
        (Spec("rvpo.core:advantages", style="tokens"), "pass --style completions"),
        (Spec("rvpo", style="token"), r"style is 'token'; expected one of .*did you mean 'tokens'"),
        (Spec("rvpo", traits=("level",)), "declared trait is 'level'"),
        (Spec("rvpo", channels="two"), "channels is 'two'"),
    ],
)
def test_what_cannot_be_checked_says_what_can(spec: Spec, said: str):
    with pytest.raises(ConfigError, match=said):
        resolve(spec)


OWN_METHODS = """
def lowest(scores, shares):
    return scores.masked_fill(shares == 0, float("inf")).min(-1).values

def lexicographic(z, p, *, tie=0.25):
    value, decided = z.new_zeros(len(z)), p.sum(-1) == 0
    for channel in range(z.shape[1]):
        decides = (z[:, channel].abs() > tie) & (p[:, channel] > 0) & ~decided
        value = z[:, channel].where(decides, value)
        decided = decided | decides
    return value

def attached(z, p):
    return z.numpy().mean(-1)
"""


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    """Write a file with methods."""
    (tmp_path / "rules.py").write_text(OWN_METHODS)
    return tmp_path / "rules.py"


def test_a_method_with_other_parameter_names_is_named_by_its_style(methods: Path):
    report = run_checks(resolve(Spec(f"{methods}:lowest")))
    assert "called as: f(rewards, groups), an advantage function" in show.report_as_text(report)
    assert not report.passed
    report = run_checks(resolve(Spec(f"{methods}:lowest", style="method")))
    assert "called as" not in show.report_as_text(report)
    assert report.passed


def test_the_order_of_channels_may_be_a_part_of_the_rule(methods: Path):
    place = f"{methods}:lexicographic"
    assert [finding.asked.name for finding in run_checks(resolve(Spec(place))).failures] == ["channel-order"]
    assert run_checks(resolve(Spec(place, traits=("ordered",)))).passed


def test_a_method_that_always_raises_gets_one_line_for_the_rest(methods: Path):
    report = run_checks(resolve(Spec(f"{methods}:attached")))
    text = show.report_as_text(report)
    assert f"n.a.  the other {len(report.findings) - 1} properties (it raises on ordinary batches)" in text
    assert text.count("it raises on ordinary batches") == 1
    assert "To use NumPy, start with z = z.detach()" in text


def test_an_engine_that_is_not_here_says_how_to_get_it():
    with pytest.raises(
        EngineError, match=r"verl is not installed here: pip install .*\[verl\]' in the clone, in an environment"
    ):
        resolve(Spec("verl:gdpo"))


def test_options_are_plain_values():
    entries = ["k=2.5", "kind=fast", "weights=[1, 2]", "flag=true", "most=inf", 'all={"a":{"b":null}}', "scale=none"]
    assert parse_options(entries, "--option") == {
        "k": 2.5,
        "kind": "fast",
        "weights": [1, 2],
        "flag": True,
        "most": math.inf,
        "all": {"a": {"b": None}},
        "scale": "none",
    }
    with pytest.raises(ConfigError, match="each key once"):
        parse_options(["k=1", "k=2"], "--option")


def test_auto_tells_the_styles_apart():
    assert from_function(by_tokens, Spec("f", style="auto")).by_tokens
    assert not from_function(rule, Spec("f", style="auto")).by_tokens
    assert from_function(by_tokens, Spec("f", style="auto", channels="one")).one_channel


@pytest.fixture
def run(tmp_path: Path) -> Callable:
    """Return ``run(function, *arguments)``: exit code, output, and what ``--json`` wrote."""
    app = typer.Typer()
    app.command()(command)

    def run(function: str, *arguments: str) -> tuple[int, str, dict | None]:
        path = tmp_path / "found.json"
        arguments = (*arguments, "--seeds", "1", "--json", str(path))
        done = CliRunner().invoke(app, [function, *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output, json.loads(path.read_text()) if path.exists() else None

    return run


def test_each_result_is_reported_as_soon_as_it_is_known():
    arrived = []
    report = run_checks(resolve(Spec("gdpo")), seeds=1, progress=arrived.append)
    assert tuple(arrived) == report.findings
    assert len(arrived) == PROPERTIES


def test_the_command_on_a_rule_that_passes(run: Callable):
    code, output, found = run("rvpo:k=2", "--processes", "1")
    assert code == 0
    assert found["passed"] is True
    assert {entry["name"] for entry in found["properties"] if entry["required"]} == {p.name for p in REQUIRED} | {
        "processes"
    }
    lines = output.splitlines()
    assert lines[0] == "checked: rvpo:k=2"
    table = [line for line in lines if line[:4] in ("PASS", "FAIL", "n.a.", "note")]
    assert len(table) == len(found["properties"])
    assert {
        line.index(entry["statement"])
        for line, entry in zip(table, found["properties"], strict=True)
        if entry["required"]
    } == {max(len(entry["name"]) for entry in found["properties"]) + 8}
    assert "24 of 24 required properties hold, 4 not applicable" in lines[-1]


def test_the_command_on_a_file_that_fails(run: Callable, tmp_path: Path):
    """The option and the module beside the file arrive, and so does the smallest batch, in text and in the file."""
    (tmp_path / "beside.py").write_text("SIGN = -1\n")
    path = tmp_path / "mine.py"
    path.write_text(
        textwrap.dedent(
            """
            from beside import SIGN
            import rvpo

            def mine(rewards, groups, way=1, risk=1.0):
                return SIGN * way * rvpo.advantages(rewards, groups, k=risk).advantages
            """
        )
    )
    code, output, found = run(f"{path}:mine", "--k-name", "risk", "--processes", "1")
    assert code == 1
    by_name = {entry["name"]: entry for entry in found["properties"]}
    failed = {name for name, entry in by_name.items() if entry["status"] == "FAIL"}
    assert failed == {"direction", "dominance", "missing-middle", "k-to-0", "k-to-inf"}
    example = by_name["direction"]["failure"]["example"]
    got = by_name["direction"]["failure"]["got"]
    assert len(example["rewards"]) == len(got) == 2
    assert sorted(got) == pytest.approx([-(2**-0.5), 2**-0.5], abs=1e-3)
    assert (got[0] - got[1]) * (example["rewards"][0][0] - example["rewards"][1][0]) < 0
    shown = output[output.index("FAIL  direction: ") :].splitlines()
    assert shown[1].strip() == "so that the policy is not pushed towards what is rewarded"
    assert shown[3].split() == ["row", "group", "reward", "0", "got"]
    assert len(shown[4].split()) == 4

    code, _, found = run(f"{path}:mine", "--k-name", "risk", "--processes", "1", "--option", "way=-1")
    assert (code, found["passed"]) == (0, True)


def test_a_missing_reward_is_null_in_json_and_a_word_in_text():
    report = examined(missing_spreads)
    data = json.loads(json.dumps(show.as_data(report), allow_nan=False))
    failure = next(entry["failure"] for entry in data["properties"] if entry["name"] == "missing-contained")
    assert None in [x for row in failure["example"]["rewards"] for x in row]
    assert None in failure["got"]
    assert "missing" in show.report_as_text(report)


# --- Several processes -----------------------------------------------------------------------------------

PROCESSES = '''
import torch
import torch.distributed as dist
import rvpo


def advantages(rewards, groups):
    return rvpo.advantages(rewards, groups).advantages


def gathered(rewards, groups):
    """Takes its own rows, gathers those of all, and returns its part."""
    if not dist.is_initialized():
        return advantages(rewards, groups)
    every = [[torch.empty_like(x) for _ in range(dist.get_world_size())] for x in (rewards, groups)]
    for parts, x in zip(every, (rewards, groups)):
        dist.all_gather(parts, x)
    whole = advantages(*(torch.cat(parts) for parts in every))
    return whole[dist.get_rank() * len(groups) :][: len(groups)]


def alone(rewards, groups):
    """Whitens over what this process has."""
    return advantages(rewards, groups)


def counted_twice(rewards, groups):
    """Sums over processes what every process has in full."""
    a = rvpo.advantages(rewards, groups, whiten="none").advantages
    moments = torch.stack([a.sum(), a.square().sum()])
    if dist.is_initialized():
        dist.all_reduce(moments)
    mean, square = moments / len(a)
    return (a - mean) / (square - mean**2).sqrt()


def fails(rewards, groups):
    if dist.is_initialized() and dist.get_rank() == 1:
        raise ValueError("not on the second one")
    return advantages(rewards, groups)
'''


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Return ``several(name, …)``: what came of two processes."""
    path = tmp_path_factory.mktemp("processes") / "parallel.py"
    path.write_text(PROCESSES)
    return lambda name, **options: compare_processes(resolve(Spec(f"{path}:{name}")), 2, 120.0, **options)


def test_processes_with_their_own_rows(several: Callable):
    done = several("gathered", local_rows=True)
    assert done.fault is None
    assert done.remark == "2 processes, to the last bit"
    fault = several("alone", local_rows=True).fault
    assert fault.kind == "wrong"
    assert "with its own rows" in fault.what
    assert int(fault.got.isfinite().sum()) == len(fault.expected) // 2


def test_processes_with_all_rows(several: Callable):
    fault = several("counted_twice").fault
    assert fault.what == "process 0 of 2, with all rows, against one process"
    fault = several("fails").fault
    assert fault.what == "process 1 of 2 raised ValueError: not on the second one"


def test_processes_that_hang_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With what they started. A shell stands for Python, so that nothing else takes time."""
    path = tmp_path / "sleeps"
    path.write_text(f"#!/bin/sh\nsleep 3600 &\necho $! >> {tmp_path}/pids\nwait\n")
    path.chmod(0o755)
    target = resolve(Spec("rvpo"))
    monkeypatch.setattr(sys, "executable", str(path))
    fault = compare_processes(target, 2, 1.0).fault
    assert fault.what.startswith("process 0 of 2 had not answered after 1 s")
    started = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(started) == 2
    deadline = time.monotonic() + 30
    while any(map(runs, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, started))


def runs(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_process_that_dies_says_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "dies"
    path.write_text("#!/bin/sh\necho first\necho no memory >&2\nexit 1\n")
    path.chmod(0o755)
    target = resolve(Spec("rvpo"))
    monkeypatch.setattr(sys, "executable", str(path))
    assert compare_processes(target, 2, 30.0).fault.what == "process 0 of 2 ended without an answer: no memory"


def test_a_function_without_a_name_cannot_be_found_by_another_process():
    report = run_checks(from_function(rule, Spec("rule")), seeds=1, processes=2)
    assert "check it by name" in report["processes"].remark
