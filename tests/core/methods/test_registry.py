"""One spelling of every method: object, text and mapping mean the same, and what cannot work is refused once."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch

import rvpo
from rvpo.core.methods import registry
from rvpo.core.methods.recorded import Recorded, method_of_record
from rvpo.core.methods.registry import METHODS, as_mapping, build_method, read_text, read_texts, spell
from rvpo.errors import ConfigError, RewardError

# A value other than the default for every option of every method.
OTHER: dict[str, dict[str, Any]] = {
    "rvpo": {"k": 2.5},
    "rvpo_explicit": {"beta": 0.25},
    "hard_min": {},
    "gdpo": {"unscored": "zero"},
    "grpo": {"unscored": "left_out"},
    "lift": {"kappa": 3.0, "floors": {"a": 0.9}, "margin": -1.0, "memory": 64.0},
    "lift_z": {"kappa": 3.0, "margin": -1.0, "horizon": 1.0},
    "tchebycheff": {"rho": 0.0},
    "smooth_tchebycheff": {"mu": 0.5},
    "lagrangian": {"thresholds": {"a": 0.9}, "rate": 1.5, "ceiling": 2.0},
    "ctwa": {"target": 0.2, "cap": 1.0, "rate": 0.1, "decay": 1.0},
    "riskpo": {
        "bundle_size": 2,
        "lower": 0.1,
        "upper": 0.9,
        "tail_weight": 0.0,
        "seek": True,
        "quantiles": "mix",
        "credit": "uniform",
        "normalise": False,
        "anchored": False,
        "baseline": "plain",
        "quantile_lr": 0.2,
        "leftover": "drop",
        "riskpo_eps": 1e-3,
        "std_floor": 0.0,
        "score": {"name": "rvpo", "k": 2.0},
    },
}
OTHER |= {
    "dara": {"form": "symmetric", "cap": 2.0},
    "sa_mrpo": {"gamma": 1.0},
    "saw": {"of": "grpo"},
    "dvao": {"epsilon": 1e-3},
    "corr_grpo": {"epsilon": 1e-3},
    "gd2po": {"form": "soft", "threshold": 0.5},
    "verpo": {"alpha": 1.0, "beta": 0.5, "discount": 1.0},
    "mgda": {},
}
NEEDED = {"lagrangian": {"thresholds": {"a": 0.5}}}  # options without a default that works
# Every kind of k and of nested value, as object and text.
PAIRS = [
    (rvpo.RVPO(), "rvpo:k=1"),
    (rvpo.RVPO(math.inf), "rvpo:k=inf"),
    (rvpo.RVPO(1e-3), "rvpo:k=0.001"),
    (rvpo.RVPO(rvpo.Linear(0.5, 2.0)), "rvpo:k=linear(0.5,2)"),
    (rvpo.RVPO(rvpo.Cosine(3.0, 1.0), whiten="group"), "rvpo:k=cosine(3,1),whiten=group"),
    (rvpo.RVPO(rvpo.AdaptiveK()), "rvpo:k=adaptive"),
    (rvpo.RVPO(rvpo.AdaptiveK(target=0.3, horizon=4.0)), "rvpo:k=adaptive(target=0.3,horizon=4)"),
    (rvpo.RVPO(rvpo.AdaptiveK(measure="bottleneck")), "rvpo:k=adaptive(measure=bottleneck)"),
    (rvpo.RVPO(dead_channels="keep"), "rvpo:k=1,dead_channels=keep"),
    (rvpo.LIFT(3, margin=0.1), "lift:kappa=3,margin=0.1"),
    (rvpo.Lagrangian({"axis:a, b": 0.5, "x": 1}), 'lagrangian:thresholds={"axis:a, b":0.5,x:1}'),
    (rvpo.Lagrangian({"1": 0.5, "true": 0.25}), 'lagrangian:thresholds={"1":0.5,"true":0.25}'),
    (rvpo.RiskPO(score=rvpo.RVPO(2.0), seek=True), "riskpo:seek=true,score={name:rvpo,k:2}"),
    (rvpo.RiskPO(score=rvpo.GDPO()), "riskpo:score={name:gdpo,unscored:left_out}"),
    (rvpo.HardMin(), "hard_min"),
]
RULES = """
from dataclasses import dataclass
from typing import ClassVar
import torch, rvpo

def cvar(z, p, *, alpha=0.5):
    return z.sort(-1).values[:, : max(1, int(alpha * z.shape[1]))].mean(-1)

@dataclass(frozen=True)
class CVaR(rvpo.Method):
    alpha: float = 0.5
    def __call__(self, batch, state):
        p = batch.p
        return rvpo.Outcome(cvar(batch.z, p, alpha=self.alpha), p)

class Plain(rvpo.Method):
    def __call__(self, batch, state):
        p = batch.p
        return rvpo.Outcome((p * batch.z).sum(-1), p)

class NotDecorated(rvpo.Method):
    alpha: float = 0.5

class Stolen(rvpo.Method):
    name = "lift"

ready = CVaR(0.25)
number = 3
def one(z): return z
def mixed(z, p): return (p * (z - z.mean(0))).sum(-1)
def infinite(z, p): return z.sum(-1) / 0
def short(z, p): return z.sum(-1)[1:]
def constant(z, p): return torch.ones(len(z), dtype=z.dtype)
def detached(z, p): return z.detach().amin(-1)
"""
R = torch.tensor([[3.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-3.0, 0.0]])


@pytest.fixture
def rules(tmp_path: Path) -> str:
    path = tmp_path / "my_rules.py"
    path.write_text(RULES)
    return str(path)


def refused(spelling: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build_method(spelling, options)
    return str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_option_has_three_equal_spellings(method: str):
    cls = METHODS[method]
    assert set(OTHER[method]) == {option.name for option in fields(cls)} - {"whiten", "dead_channels"}
    for options in (OTHER[method], NEEDED.get(method, {}), {**NEEDED.get(method, {}), **SHARED.get(method, {})}):
        built = build_method({"name": method, **options})
        given = {**options, "score": build_method(options["score"])} if "score" in options else options
        assert cls(**given) == built
        assert build_method(spell(built)) == built
        assert build_method(method, options) == built
        assert build_method(json.loads(json.dumps(as_mapping(built)))) == built
        assert build_method(built) is built
        assert pickle.loads(pickle.dumps(built)) == built == copy.deepcopy(built)
        for option, value in given.items():
            own = value == getattr(built, f"own_{option}", ...)
            assert getattr(built, option) == (None if own else value)


SHARED = {method: {"whiten": "none", "dead_channels": "keep"} for method in METHODS if method != "grpo"}


@pytest.mark.parametrize(("method", "text"), PAIRS, ids=[text for _, text in PAIRS])
def test_text(method: rvpo.Method, text: str):
    assert spell(method) == text
    assert build_method(text) == method
    assert build_method(as_mapping(method)) == method
    assert read_texts(f"gdpo {text}  lift:kappa=4") == [rvpo.GDPO(), method, rvpo.LIFT(4.0)]


@pytest.mark.parametrize(
    "k",
    [
        "linear(0.5,2)",
        "linear(start=0.5, end=2)",
        "linear()",
        {"kind": "linear", "start": 0.5, "end": 2},
        rvpo.Linear(),
    ],
)
def test_spellings_of_a_schedule(k: Any):
    assert (
        rvpo.RVPO(k) == build_method({"name": "rvpo", "k": k}) == build_method("rvpo", {"k": k}) == rvpo.RVPO("linear")
    )


def test_a_class_of_ours_keeps_its_name_however_it_is_named():
    for spelling in (rvpo.LIFT, "rvpo.core.methods.lift:LIFT", "rvpo.core:LIFT"):
        assert build_method(spelling) == rvpo.LIFT()
        assert spell(build_method(spelling)) == rvpo.LIFT.name == "lift"


def test_a_class_stands_for_its_defaults():
    assert build_method(rvpo.LIFT) == rvpo.LIFT()


@pytest.mark.parametrize("method", METHODS)
def test_options_of_others_name_the_owner(method: str):
    owners = {"kappa": "lift", "mu": "smooth_tchebycheff", "decay": "ctwa", "thresholds": "lagrangian"}
    for option, owner in owners.items():
        if method != owner and (method, option) != ("lift_z", "kappa"):
            message = refused({"name": method, **NEEDED.get(method, {}), option: 0.5})
            assert f"{option} is 0.5, but method {method!r} has no option {option!r}. Use method {owner} for" in message


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("lft", "method is 'lft' (did you mean 'lift'?); expected one of rvpo, rvpo_explicit"),
        (
            "lift:kapa=1",
            "kapa is 1, but method 'lift' has no option 'kapa' (did you mean 'kappa'?); expected one of kappa",
        ),
        ("gdpo:kapa=1", "has no option 'kapa'; expected one of unscored, besides whiten and dead_channels"),
        ("gdpo:k=7", "k is 7, but method 'gdpo' has no option 'k'. Use method rvpo for it"),
        ("lift:kappa", "method is 'lift:kappa'; expected lift:option=value"),
        ("lift:kappa=", "its part 'kappa=' is not option=value"),
        ("lift:kappa=3,kappa=4", "its part 'kappa=4' is not option=value, each option once"),
        ("kappa=3", "method is 'kappa=3'; expected NAME:option=value"),
        ("rvpo:k=linear(0.5", "k is 'linear(0.5'; expected a number in [0, inf], linear(0.5,2)"),
        ("rvpo:k=linear(,2)", "'linear(,2)' has a blank value; expected a value at each place"),
        ("rvpo:k=linear(start=1,start=2)", "'linear(start=1,start=2)' has 'start' twice; expected each option once"),
        ("rvpo:k=adaptive(target=0.5,target=0.6)", "has 'target' twice"),
        ("rvpo:k=linear(0.5,2,3)", "k is 'linear(0.5,2,3)'"),
        ("rvpo:k=linear(0.5,-2)", "linear: end of k is -2; expected a number in [0, inf)"),
        ("rvpo:k=adaptive(taget=0.3)", "k is 'adaptive(taget=0.3)'"),
        ({"name": "rvpo", "k": {"kind": "adaptive", "taget": 0.3}}, "unknown key 'taget' (did you mean 'target'?)"),
        ({"name": "rvpo", "k": {"kind": "square"}}, "k has the kind 'square'; expected"),
        ("rvpo:k=-1", "k is -1; expected a number in [0, inf]"),
        ("rvpo:k=nan", "k is nan; expected a number in [0, inf]"),
        ("rvpo:k=true", "k is True; expected a number in [0, inf]"),
        ("lagrangian:thresholds={a:0.5", "has a bracket that does not close"),
        ("lagrangian:thresholds={a}", "contains 'a'; expected key:value"),
        ("lagrangian:thresholds=" + "[" * 10 + "]" * 10, "more than 8 nested brackets"),
        ({"kappa": 3}, "expected a mapping with a name"),
        ({"name": "lift:kappa=3"}, "expected options as keys of the mapping"),
        (3, "method is 3; expected a text such as 'lift:kappa=3'"),
        (None, "method is None; expected a text"),
        ("", "method is ''"),
        ("no.such.module:rule", "no.such"),
        ("none.py:rule", "none.py"),
        ({"name": "riskpo", "score": "riskpo"}, "expected another method as an object"),
        ({"name": "riskpo", "score": {"k": 1.0}}, "expected a mapping with a name"),
        ({"name": "riskpo", "score": "gdpoo"}, "method is 'gdpoo' (did you mean 'gdpo'?)"),
        ({"name": "riskpo", "score": {"name": "lift", "k": 1.0}}, "k is 1.0, but method 'lift' has no option 'k'"),
        (
            {"name": "gdpo", "whiten": "bach"},
            "whiten is 'bach'; expected one of None, 'batch', 'group', 'token', 'none'",
        ),
        ({"name": "grpo", "whiten": "token"}, "is not GRPO"),
        ({"name": "lift", "kappa": -1}, "kappa is -1; expected a number in [0, inf)"),
        ({"name": "lift", "kappa": math.inf}, "kappa is inf; expected a number in [0, inf)"),
        ({"name": "lift", "kappa": math.nan}, "kappa is nan; expected a number in [0, inf)"),
        ({"name": "lift", "kappa": True}, "kappa is True; expected a number in [0, inf)"),
        ({"name": "lift", "margin": 1.0}, "margin is 1.0; expected a number in [0, 1)"),
        ({"name": "lift", "margin": math.nan}, "margin is nan; expected a number in [0, 1)"),
        ({"name": "lift", "margin": "0"}, "margin is '0'; expected a number in [0, 1)"),
        ({"name": "lift", "margin": -0.5}, "margin is -0.5; expected a number in [0, 1)"),
        ({"name": "lift", "memory": 0}, "memory is 0; expected a number above 0"),
        ({"name": "lift", "memory": math.inf}, "memory is inf; expected a number in [0, inf)"),
        ({"name": "lift", "floors": 0.9}, "floors is 0.9; expected a mapping of channels to the share in (0, 1]"),
        ({"name": "lift", "floors": {"a": 1.5}}, "floors: a is 1.5; expected a number in [0, 1]"),
        ({"name": "lift", "floors": {"a": 0}}, "floors: a is 0; expected a number above 0"),
        (
            "lift:horizon=5",
            "Set memory, in completions, instead; method lift_z still has horizon, in batches; expected",
        ),
        ({"name": "lift_z", "margin": 1.0}, "margin is 1.0; expected a correlation in [-1, 1)"),
        ({"name": "lift_z", "margin": math.nan}, "margin is nan; expected a correlation in [-1, 1)"),
        ({"name": "lift_z", "margin": "0"}, "margin is '0'; expected a correlation in [-1, 1)"),
        ({"name": "lift_z", "horizon": 0.5}, "horizon is 0.5; expected a number of batches >= 1"),
        ({"name": "lift_z", "horizon": math.inf}, "horizon is inf; expected a number in [0, inf)"),
        ({"name": "tchebycheff", "rho": -0.1}, "rho is -0.1; expected a number in [0, inf)"),
        ({"name": "smooth_tchebycheff", "mu": 0}, "mu is 0; expected a number above 0"),
        ({"name": "lagrangian"}, "thresholds is {}; expected a mapping of channels to the share in [0, 1]"),
        ({"name": "lagrangian", "thresholds": [0.5]}, "thresholds is [0.5]; expected a mapping of channels"),
        ({"name": "lagrangian", "thresholds": {"a": 2}}, "thresholds: a is 2; expected a number in [0, 1]"),
        ({"name": "lagrangian", "thresholds": {"a": 1}, "rate": 0}, "rate is 0; expected a number above 0"),
        ({"name": "lagrangian", "thresholds": {"a": 1}, "ceiling": 0.0}, "ceiling is 0; expected a number above 0"),
        ({"name": "ctwa", "target": -1}, "target is -1; expected a number in [0, inf)"),
        ({"name": "ctwa", "cap": 1.1}, "cap is 1.1; expected a number in [0, 1]"),
        ({"name": "ctwa", "decay": 0}, "decay is 0; expected a number above 0"),
        ({"name": "ctwa", "decay": 1.5}, "decay is 1.5; expected a number in [0, 1]"),
    ],
)
def test_refused(spelling: Any, message: str):
    assert message in refused(spelling)


def test_an_option_is_given_once():
    assert "kappa is 4, but method 'lift:kappa=3' has 3; set one of them" in refused("lift:kappa=3", kappa=4)
    assert build_method("lift:kappa=3", {"kappa": 3}) == rvpo.LIFT(3)
    assert "set its options where it is built" in refused(rvpo.LIFT(), kappa=3)
    with pytest.raises(ConfigError, match="expected another method as an object"):
        rvpo.RiskPO(score="gdpo")  # type: ignore[arg-type]


def test_a_function_of_ones_own(rules: str):
    method = build_method(f"{rules}:cvar:alpha=0.25")
    assert spell(method) == f"{rules}:cvar:alpha=0.25"
    assert build_method(as_mapping(method)) == method
    assert spell(build_method(f"{rules}:cvar")) == f"{rules}:cvar"
    assert spell(build_method(f"{rules}:cvar:alpha=0.5")) == f"{rules}:cvar"  # its default
    out = rvpo.advantages(R, num_generations=4, method=f"{rules}:cvar:whiten=none")
    assert (
        out.aggregated.tolist()
        == rvpo.advantages(R, num_generations=4, method="hard_min:whiten=none").aggregated.tolist()
    )
    # dA/dZ of the minimum: all on the lower of two channels, by automatic differentiation.
    assert (
        out.responsibilities.tolist()
        == rvpo.advantages(R, num_generations=4, method="hard_min").responsibilities.tolist()
    )
    assert pickle.loads(pickle.dumps(method)) == method


def test_a_class_of_ones_own(rules: str):
    method = build_method(f"{rules}:CVaR:alpha=0.25")
    assert (method.alpha, spell(method)) == (0.25, f"{rules}:CVaR:alpha=0.25")  # type: ignore[attr-defined]
    assert build_method({"name": f"{rules}:CVaR", "alpha": 0.25}) == method == build_method(type(method)(0.25))
    assert build_method(f"{rules}:ready") == method
    assert build_method(spell(build_method(f"{rules}:ready"))) == method  # named by its class and options
    assert rvpo.advantages(R, num_generations=4, method=method).advantages.isfinite().all()
    assert build_method(f"{rules}:Plain:whiten=group").whiten == "group"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cvar:beta=1", "has no option 'beta'; expected one of alpha"),
        ("CVaR:alfa=1", "has no option 'alfa' (did you mean 'alpha'?)"),
        ("ready:alpha=0.5", "is an object: set its options where it is built"),
        ("number", "is a int; expected a function (z, p) -> A"),
        ("one", "cannot be called as f(z, p)"),
        ("NotDecorated", "is not a dataclass; expected @dataclass(frozen=True)"),
        ("cvarr", "cvarr"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(rules: str, name: str, message: str):
    assert message in refused(f"{rules}:{name}")


def test_a_class_cannot_take_the_name_of_ours(rules: str):
    stolen = build_method(f"{rules}:Stolen")  # named by its place
    assert stolen.name == f"{rules}:Stolen"

    @dataclass(frozen=True)
    class Mine(rvpo.Method):
        name = "lift"

    assert "has the name 'lift', which is a method of rvpo" in refused(Mine())


@pytest.mark.parametrize(
    ("name", "message"),
    [("infinite", "returned inf for row|returned nan for row"), ("short", r"shape \(3,\); expected a")],
)
def test_a_function_that_returns_nonsense(rules: str, name: str, message: str):
    with pytest.raises(RewardError, match=message):
        rvpo.advantages(R, num_generations=4, method=f"{rules}:{name}")


def test_responsibilities_of_a_function_that_cannot_be_differentiated(rules: str):
    assert rvpo.advantages(R, num_generations=4, method=f"{rules}:detached").responsibilities.isnan().all()
    assert rvpo.advantages(R, num_generations=4, method=f"{rules}:constant").responsibilities.isnan().all()


def test_a_function_works_under_no_grad_and_inference_mode_and_follows_a_gradient(rules: str):
    plain = rvpo.advantages(R, num_generations=4, method=f"{rules}:cvar")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            inside = rvpo.advantages(R.clone(), num_generations=4, method=f"{rules}:cvar")
        assert torch.equal(inside.advantages, plain.advantages)
        assert torch.equal(inside.responsibilities, plain.responsibilities)
    leaf = R.clone().requires_grad_()
    out = rvpo.advantages(leaf, num_generations=4, method=f"{rules}:cvar:whiten=none")
    out.aggregated.sum().backward()
    assert leaf.grad is not None
    assert not plain.advantages.requires_grad


def test_missing_values_of_a_function(rules: str):
    rewards = R.clone()
    rewards[0, 1] = math.nan
    out = rvpo.advantages(rewards, num_generations=4, method=f"{rules}:mixed")
    assert out.advantages.isfinite().all()
    assert out.missing[0, 1]


def test_entry_points(monkeypatch: pytest.MonkeyPatch, rules: str):
    class Entry:
        name = "cvar"

        def load(self) -> Any:
            return registry.load_object(f"{rules}:cvar", "method")

    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [Entry()])
    assert registry.known_methods()[-1] == "cvar"
    method = build_method("cvar:alpha=0.25")
    assert spell(method) == "cvar:alpha=0.25"
    assert method_of_record(as_mapping(method)) == method
    assert "(did you mean 'cvar'?)" in refused("cva")


def test_a_record_imports_nothing(tmp_path: Path):
    path = tmp_path / "evil.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nrule = lambda z, p: z.sum(-1)\n")
    method = method_of_record({"name": f"{path}:rule", "alpha": 0.5})
    assert isinstance(method, Recorded)
    assert spell(method) == f"{path}:rule:alpha=0.5"
    assert as_mapping(method) == {"name": f"{path}:rule", "alpha": 0.5}
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ConfigError, match=r"is not available here.*--method"):
        rvpo.core.compute(R, rvpo.AdvantageConfig(method), num_generations=4)
    assert isinstance(method_of_record({"name": "lift", "option_of_tomorrow": 1}), Recorded)
    assert isinstance(method_of_record({"name": "of_tomorrow"}), Recorded)
    assert method_of_record({"name": "lift", "kappa": 3}) == rvpo.LIFT(3)


def test_options_are_plain_data():
    """A recipe can say all of them: no class, function or tensor is in a mapping."""
    for method in METHODS:
        built = build_method({"name": method, **NEEDED.get(method, {})})
        assert json.loads(json.dumps(as_mapping(built), allow_nan=False)) == as_mapping(built)


def test_help_names_every_method():
    for method, cls in METHODS.items():
        assert f"{method}: {cls.summary}" in registry.help_text()


@pytest.mark.parametrize(
    "text",
    ["lift:kappa=" + "9" * 5000, "a" * 10_000, "rvpo:k=" + "linear(" * 500, "lift:" + ",=" * 500, "\x00:=", "::=:"],
)
def test_hostile_text_is_a_config_error(text: str):
    with pytest.raises(ConfigError):
        build_method(text)


def test_read_text_keeps_places():
    assert read_text("C:\\rules.py:cvar:alpha=1") == ("C:\\rules.py:cvar", {"alpha": 1})
    assert read_text("package.module:CVaR") == ("package.module:CVaR", {})
