"""``rvpo check trl:…``: what TRL's own trainer keeps, and what it does not."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("trl")

import rvpo
from rvpo.conformance import examples
from rvpo.conformance.processes import compare_processes
from rvpo.conformance.suite import NOT_APPLICABLE, run_checks
from rvpo.conformance.target import CallError, Spec, Target
from rvpo.conformance.targets import resolve
from rvpo.errors import ConfigError


@pytest.fixture(scope="module", params=["grpo", "gdpo"])
def target(request: pytest.FixtureRequest) -> Target:
    return resolve(Spec(f"trl:{request.param}"))


def test_it_is_trls_own_result(target: Target):
    """On complete rewards ours equals TRL's (test_against_trl.py), so the adapter hands on rewards and groups."""
    for example in examples.plain_examples(target, 0):
        ours = rvpo.advantages(example.rewards, example.groups, method=target.name.removeprefix("trl:")).advantages
        torch.testing.assert_close(target.answer(example).advantages.float(), ours, atol=2e-6, rtol=2e-6)


def test_what_trl_does_not_keep(target: Target):
    """One eps of 1e-4 and float32: rounding at 1000 is a signal. A missing reward is 0 in TRL's sum (GRPO)."""
    report = run_checks(target, seeds=1)
    failed = {finding.asked.name for finding in report.failures}
    assert (
        failed == {"trl:grpo": {"rounding", "missing-not-0", "missing-middle"}, "trl:gdpo": {"rounding"}}[target.name]
    )
    assert report["missing-as-average"].holds is (target.name == "trl:gdpo")
    not_asked = {f.asked.name for f in report.findings if f.asked.required and f.status == NOT_APPLICABLE}
    assert not_asked == {
        *("group-names", "padding", "length", "missing-refused"),
        *("k-to-0", "k-to-inf", "k-finite", "k-monotone", "processes"),
    }
    rewards = report["rounding"].example.rewards
    spread = (rewards.amax(0) - rewards.amin(0)).max()
    assert spread <= 2e-6 * rewards.abs().max()


def test_two_processes():
    outcome = compare_processes(resolve(Spec("trl:gdpo")), 2, 180.0)
    assert outcome.fault is None
    assert outcome.batches == 2


def test_options_are_trls():
    scaled = resolve(Spec("trl:grpo", options={"scale_rewards": "none"}))
    (example, *_) = examples.plain_examples(scaled, 0)
    total = example.rewards.double().sum(1)
    expected = torch.stack([total[example.groups == g] - total[example.groups == g].mean() for g in range(3)]).flatten()
    torch.testing.assert_close(scaled.answer(example).advantages, expected, atol=1e-6, rtol=0)


def test_what_trl_raises_is_a_finding():
    target = resolve(Spec("trl:gdpo"))
    (example, *_) = examples.plain_examples(target, 0)
    with pytest.raises(CallError, match="RuntimeError"):  # nine rows are no two groups of four
        target.answer(example.rows(torch.arange(9)))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (Spec("trl:gdpoo"), r"TRL's aggregation is 'gdpoo'; expected one of .* \(did you mean 'gdpo'\?\)"),
        (Spec("trl:grpo", style="tokens"), "takes many rewards per completion and has no k"),
        (Spec("trl:grpo", k_name="k"), "has no k"),
        (Spec("trl:grpo", options={"no_option": 1}), "GRPOConfig refuses the options {'no_option': 1}"),
    ],
)
def test_what_cannot_be_checked_says_what_can(spec: Spec, said: str):
    with pytest.raises(ConfigError, match=said):
        resolve(spec)
