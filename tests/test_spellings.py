"""One spelling of a method: object, text and mapping give equal results in every place that takes a method.

verl's places are in tests/engines/verl/test_spelling.py, which needs an environment of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rvpo
from rvpo.conformance.target import Spec
from rvpo.conformance.targets import resolve
from rvpo.core.methods.registry import METHODS, as_mapping, build_method, read_texts, spell
from rvpo.errors import ConfigError
from rvpo.recipe import build_recipe

REWARDS = torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RULE = "def low(z, p, *, alpha=0.5):\n    return alpha * z.amin(-1) + (1 - alpha) * (p * z).sum(-1)\n"
METHODS_WITH_OPTIONS: list[rvpo.Method] = [
    rvpo.RVPO(2.0),
    rvpo.RVPO(rvpo.Linear(0.5, 2.0)),
    rvpo.RVPO(rvpo.AdaptiveK(target=0.4)),
    rvpo.RVPOExplicit(0.25),
    rvpo.HardMin(whiten="group"),
    rvpo.GDPO(whiten="none"),
    rvpo.GRPO(),
    rvpo.LIFT(kappa=3, margin=0.1, floors={"0": 0.9}),
    rvpo.LIFTZ(kappa=3, margin=0.1),
    rvpo.RiskPO(bundle_size=2, score=rvpo.RVPO(2.0)),
    rvpo.Tchebycheff(0.1),
    rvpo.SmoothTchebycheff(0.3),
    rvpo.Lagrangian({"0": 0.9}),
    rvpo.CTWA(target=0.2),
    rvpo.DARA(form="symmetric", whiten="group"),
    rvpo.SAMRPO(gamma=2.0),
    rvpo.SAW(of="grpo"),
    rvpo.DVAO(epsilon=0.5),
    rvpo.CorrGRPO(epsilon=0.5),
    rvpo.GD2PO(form="soft"),
    rvpo.VeRPO(alpha=0.5),
    rvpo.MGDA(whiten="none"),
]


def advantages(method: Any) -> list[float]:
    out = rvpo.advantages(REWARDS, num_generations=4, method=method, progress=0.5, state={})
    return out.advantages.tolist()


def aggregator(method: Any) -> list[float]:
    agg = rvpo.Aggregator(method, ["0", "1"])
    agg(REWARDS.flip(0), num_generations=4, progress=0.25)
    return agg(REWARDS, num_generations=4, progress=0.5).advantages.tolist()


def config(method: Any) -> rvpo.Method:
    return rvpo.AdvantageConfig(method).method


def trl(method: Any) -> list[float]:
    from rvpo.trl import RVPOConfig

    args = RVPOConfig("unused", use_cpu=True, bf16=False, method=method)
    agg = args.aggregator(["0", "1"], [None, None], None)
    return agg(REWARDS, num_generations=4, progress=0.5).advantages.tolist()


def recipe(method: Any) -> str:
    """A recipe is YAML: a text or a mapping."""
    if isinstance(method, rvpo.Method):
        method = spell(method)
    return build_recipe(
        {"name": "a", "model": {"path": "m"}, "data": {"path": "d"}, "rewards": ["f"], "method": method}
    ).method


def replayed(method: Any) -> list[rvpo.Method]:
    """A command line is text, where a mapping is its JSON for ``rvpo check --option`` alone."""
    return read_texts(f"gdpo {spell(build_method(method))}")


def checked(method: Any) -> str:
    return resolve(Spec(spell(build_method(method)))).name


PLACES: list[Callable[[Any], Any]] = [advantages, aggregator, config, trl, recipe, replayed, checked]


@pytest.fixture
def own(tmp_path: Path) -> rvpo.Method:
    path = tmp_path / "my_rules.py"
    path.write_text(RULE)
    return build_method(f"{path}:low:alpha=0.25")


def test_no_method_is_forgotten():
    assert {method.name for method in METHODS_WITH_OPTIONS} == set(METHODS)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("method", [*METHODS_WITH_OPTIONS, None], ids=lambda m: "one's own" if m is None else spell(m))
def test_three_spellings_give_equal_results(place: Callable[[Any], Any], method: rvpo.Method | None, own: rvpo.Method):
    method = own if method is None else method
    if place is trl:
        pytest.importorskip("trl")
    spellings = [method, spell(method), as_mapping(method), json.loads(json.dumps(as_mapping(method)))]
    first, *others = [place(spelling) for spelling in spellings]
    assert all(other == first for other in others)
    default = type(method)() if method is not own and method.name not in ("lagrangian", "grpo") else None
    first_batch = place is advantages and method.name == "ctwa"  # whose weights move after it
    if default is not None and place in (advantages, aggregator, config) and not first_batch:
        assert place(default) != first, "the options have no effect here"


@pytest.mark.parametrize("place", [advantages, aggregator, config, trl, recipe], ids=lambda place: place.__name__)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("lfit", "method is 'lfit' (did you mean 'lift'?)"),
        ("lift:kapa=3", "has no option 'kapa' (did you mean 'kappa'?)"),
        (
            "lift:horizon=5",
            "Set memory, in completions, instead; method lift_z still has horizon, in batches; expected",
        ),
        ({"name": "gdpo", "k": 7}, "k is 7, but method 'gdpo' has no option 'k'. Use method rvpo for it"),
        ("rvpo:k=-1", "k is -1; expected a number in [0, inf]"),
    ],
)
def test_one_fault_has_one_message_in_all_places(place: Callable[[Any], Any], fault: Any, message: str):
    if place is trl:
        pytest.importorskip("trl")
    with pytest.raises(ConfigError) as caught:
        place(fault)
    assert message in str(caught.value)
