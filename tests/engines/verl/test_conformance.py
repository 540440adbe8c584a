"""``rvpo check verl:…``: what verl's own estimators keep, and what they do not."""

from __future__ import annotations

import pytest
import torch
from verl.trainer.ppo import core_algos

import rvpo
from rvpo.conformance import examples
from rvpo.conformance.calling import by_completions
from rvpo.conformance.processes import compare_processes
from rvpo.conformance.properties import DESCRIPTIVE
from rvpo.conformance.suite import NOT_APPLICABLE, examine, run_checks
from rvpo.conformance.target import Example, Spec
from rvpo.conformance.targets import resolve
from rvpo.engines.verl.conformance import lacks
from rvpo.engines.verl.placeholder import NAMES
from rvpo.errors import ConfigError

ALWAYS = {"missing-contained", "missing-row"}
FAILED = {
    "gdpo": {"rounding", "missing-channel"},
    "grpo": {"rounding"},
    "grpo_vectorized": {"rounding"},
    "grpo_passk": {"alone-finite"},  # it refuses a group of one
    "rloo": set(),
    "rloo_vectorized": set(),
    "opo": set(),
    "reinforce_plus_plus_baseline": set(),
    "reinforce_plus_plus": {"no-signal", "group-baseline"},  # its baseline is the batch's mean
    "gpg": {"group-baseline"},  # it scales by the number of rewards that are 0
}


@pytest.mark.parametrize("name", FAILED)
def test_what_verl_does_not_keep(name: str):
    report = run_checks(resolve(Spec(f"verl:{name}")), seeds=1)
    assert {finding.asked.name for finding in report.failures} == FAILED[name] | ALWAYS
    assert report["padding"].status == report["length"].status == "PASS"
    assert (report["channel-order"].status == NOT_APPLICABLE) is (name != "gdpo")


def test_every_estimator_of_outcome_rewards_is_known():
    theirs = {name for name in core_algos.ADV_ESTIMATOR_REGISTRY if not name.startswith("rvpo:") and name not in NAMES}
    assert {name for name in theirs if not lacks(name)} == set(FAILED)


def test_one_missing_reward_reaches_other_groups_in_verls_gdpo():
    """The smallest batch that shows it: two completions of two prompts, one reward missing, both without advantage."""
    finding = run_checks(resolve(Spec("verl:gdpo")), seeds=1)["missing-contained"]
    example, fault = finding.example, finding.fault
    assert len(example.groups) == 2
    assert example.groups.unique().numel() == 2
    assert int(example.rewards.isnan().sum()) == 1
    assert not fault.got.isfinite().any()
    assert "1 in other groups" in fault.what


def test_verls_gdpo_is_called_as_verl_does():
    """Against ours on one length, where whitening by tokens is whitening by completions."""
    target = resolve(Spec("verl:gdpo"))
    ours = by_completions(lambda r, g: rvpo.advantages(r, g, method="gdpo", eps=1e-6), {}, None)
    for example in examples.plain_examples(target, 0):
        equal = Example(example.rewards, example.groups, torch.full_like(example.lengths, 1))
        torch.testing.assert_close(
            target.answer(equal).advantages, ours(equal).advantages, atol=1e-4, rtol=0
        )  # verl whitens by sqrt(var + 1e-8) of the sum, in float32


def test_verls_gdpo_whitens_by_tokens():
    exact = next(asked for asked in DESCRIPTIVE if asked.name == "length-exact")
    assert examine(resolve(Spec("verl:gdpo")), exact, 1).holds is False
    assert examine(resolve(Spec("verl:grpo")), exact, 1).holds is True


def test_options_reach_verls_function_and_config():
    (example, *_) = examples.plain_examples(resolve(Spec("verl:gdpo")), 0)
    plain = resolve(Spec("verl:gdpo")).answer(example).advantages
    weighted = Spec("verl:gdpo", options={"gdpo_reward_weights": [1.0, 0.0, 0.0]})  # of config
    alone = example.scored(example.rewards[:, :1])
    got = resolve(weighted).answer(example).advantages
    torch.testing.assert_close(got, resolve(Spec("verl:gdpo")).answer(alone).advantages)
    assert (got - plain).abs().max() > 0.1
    wide = resolve(Spec("verl:gdpo", options={"epsilon": 1.0})).answer(example).advantages  # of the function
    assert (wide - plain).abs().max() > 1e-3


def test_two_processes():
    outcome = compare_processes(resolve(Spec("verl:gdpo")), 2, 180.0)
    assert outcome.fault is None
    assert outcome.remark == "2 processes, to the last bit"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gdpoo", r"verl's estimator is 'gdpoo' \(did you mean 'gdpo'\?\); expected one of grpo"),
        ("gae", "needs values, gamma, lam, but the check has rewards only; expected one of grpo"),
        ("remax", "needs reward_baselines"),
    ],
)
def test_what_cannot_be_checked_says_what_can(name: str, said: str):
    with pytest.raises(ConfigError, match=said):
        resolve(Spec(f"verl:{name}"))
