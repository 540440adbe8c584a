"""Environments in TRL: rewards per turn and per environment as channels, through a real training on a tiny model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import features
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tiny_run import even, make_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

import rvpo
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.errors import DataError
from rvpo.logs.open import open_run
from rvpo.rewards.turns import TurnReward, per_turn

# A word of colour is a call of the tool: even random completions have many.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'tool' %}answer {{ message['content'] }} <|end|> "
    "{% else %}<|{{ message['role'] }}|> {{ message['content'] }} "
    "{% for call in message['tool_calls'] or [] %}{{ call['function']['name'] }} "
    "{% for key, value in call['function']['arguments'].items() %}{{ key }} {{ value }} {% endfor %}{% endfor %}"
    "<|end|> "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open_pattern": r"\b(?P<color>red|green|blue)\b",
            "close_pattern": r"(?=\s|$)",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "press", "arguments": {"color": "{color}"}}},
        },
        "content": {"close_pattern": r"<eos>", "content": "text"},
    },
}


class Buttons:
    """Wants one colour; says after each press whether it was that one, and in the end whether it ever was."""

    def reset(self, wanted: str = "red", **_: Any) -> None:
        self.wanted, self.turn_rewards = wanted, []

    def press(self, color: str) -> str:
        """
        Press a button.

        Args:
            color: of the button.
        """
        self.turn_rewards.append(float(color == self.wanted))
        return "yes" if color == self.wanted else "no"

    def get_reward(self) -> float | None:
        return float(1.0 in self.turn_rewards) if self.turn_rewards else None


class Lamps:
    """Has rewards of turns, some of which nobody can score, and none of its own in the end."""

    def reset(self, **_: Any) -> None:
        self.turn_rewards: list[float | None] = []

    def press(self, color: str) -> str:
        """
        Press a switch.

        Args:
            color: of the switch.
        """
        self.turn_rewards.append({"red": 1.0, "green": 0.25}.get(color))
        return "yes"


@dataclass
class Trained:
    trainer: Any
    folder: Path
    turns: list[list[tuple[str, list[float | None]]]]  # of each step: environment and its rewards, per completion


def rows() -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"what is {word}"}],
                "environment": name,
                "wanted": color,
            }
            for word, name, color in zip(
                ["cat", "dog", "sun", "rain", "one", "two", "three", "four"],
                ["buttons", "lamps"] * 4,
                ["red", "blue", "green", "red"] * 2,
                strict=True,
            )
        ]
    )


several_environments = pytest.mark.skipif(
    not features.SEVERAL_ENVIRONMENTS, reason="this TRL has one environment per run"
)


def environment_trainer(
    model_dir: Path, output: Path, rewards: dict[str, Any], factory: Any = None, **options: Any
) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.chat_template, tokenizer.response_template = CHAT_TEMPLATE, RESPONSE_TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    return make_trainer(
        model,
        output,
        rewards,
        dataset=rows(),
        given={
            "environment_factory": factory or {"buttons": Buttons, "lamps": Lamps},
            "processing_class": tokenizer,
        },
        max_completion_length=24,
        max_tool_calling_iterations=2,
        per_device_train_batch_size=16,
        num_generations=8,
        log_completions=True,
        **options,
    )


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("environments")
    turns: list[list[tuple[str, list[float | None]]]] = []

    def seen(completions: list[Any], environments: list[Any], **_: Any) -> list[float]:
        turns.append([(type(one).__name__, list(one.turn_rewards)) for one in environments])
        return [float(len(one.turn_rewards)) for one in environments]

    rewards = {"even": even, "calls": seen, "turn_sum": TurnReward("sum"), **per_turn(2)}
    trainer = environment_trainer(tiny_model_dir, folder, rewards, method="gdpo", max_steps=3)
    trainer.train()
    return Trained(trainer, folder, turns)


def column(records: pd.DataFrame, name: str) -> list[float | None]:
    found = records[records.reward_function == name].sort_values("completion").reward
    return [None if math.isnan(value) else value for value in found]


@several_environments
def test_each_source_of_rewards_is_a_channel(trained: Trained):
    names = ["even", "calls", "turn_sum", "turn_1", "turn_2", "Buttons"]
    assert trained.trainer.reward_func_names == names
    logged = [entry for entry in trained.trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3
    for name in names[:-1]:
        assert all(f"rvpo/{name}/mean" in entry for entry in logged)


@several_environments
def test_the_record_has_what_the_environments_gave(trained: Trained):
    several = 0
    for step, turns in enumerate(trained.turns, 1):
        records = pd.read_parquet(trained.folder / "channels" / f"{step:06d}.parquet")
        several += sum(len(rewards) > 1 for _, rewards in turns)
        whole = [None if None in rewards else sum(rewards) for _, rewards in turns]
        assert column(records, "turn_sum") == pytest.approx(whole)
        for number in (1, 2):
            there = [rewards[number - 1] if len(rewards) >= number else None for _, rewards in turns]
            assert column(records, f"turn_{number}") == pytest.approx(there)
        own = [float(1.0 in rewards) if name == "Buttons" and rewards else None for name, rewards in turns]
        assert column(records, "Buttons") == own, "missing in the other environment, and never 0"
    assert several > 0, "some rollouts called a tool in more than one turn"
    assert {name for turns in trained.turns for name, _ in turns} == {"Buttons", "Lamps"}


@several_environments
def test_advantages_are_those_of_the_method_on_these_channels(trained: Trained):
    names = trained.trainer.reward_func_names
    for step in (1, 2, 3):
        records = pd.read_parquet(trained.folder / "channels" / f"{step:06d}.parquet")
        rewards = [[math.nan if value is None else value for value in column(records, name)] for name in names]
        expected = rvpo.Aggregator("gdpo", names)(torch.tensor(rewards, dtype=torch.float64).T, num_generations=8)
        made = records[records.reward_function == "even"].sort_values("completion").advantage
        torch.testing.assert_close(torch.tensor(made.to_numpy()), expected.advantages, rtol=0, atol=1e-6)
        assert expected.advantages.abs().max() > 0


@several_environments
def test_replay_and_diagnose_read_the_run(trained: Trained):
    run = open_run(trained.folder)
    again = replay(run, [])
    assert again.own_difference is not None
    assert again.own_difference < 1e-6
    found = diagnose(run)
    assert {channel.name for channel in found.channels} >= {"turn_sum", "turn_1", "Buttons"}


@several_environments
def test_an_environment_without_the_rewards_of_its_turns_is_named(tiny_model_dir: Path, tmp_path: Path):
    trainer = environment_trainer(
        tiny_model_dir, tmp_path, {"even": even, "progress": TurnReward("last", "steps")}, method="gdpo", max_steps=1
    )
    with pytest.raises(DataError, match="'steps', which the environment Buttons does not have") as caught:
        trainer.train()
    assert "Let reset" in str(caught.value)


@pytest.mark.skipif(
    not features.TOOLS, reason="this TRL reads calls of tools in a way that this transformers has dropped"
)
def test_one_environment_for_all_prompts(tiny_model_dir: Path, tmp_path: Path):
    turns: list[list[list[float]]] = []

    def seen(completions: list[Any], environments: list[Any], **_: Any) -> list[float]:
        turns.append([list(one.turn_rewards) for one in environments])
        return [float(len(one.turn_rewards)) for one in environments]

    rewards = {"calls": seen, "turn_sum": TurnReward("sum"), **per_turn(1)}
    trainer = environment_trainer(tiny_model_dir, tmp_path, rewards, Buttons, method="gdpo", max_steps=2)
    trainer.train()
    assert any(any(rewards) for rewards in turns[0]), "some rollouts pressed the right button"
    for step, of_step in enumerate(turns, 1):
        records = pd.read_parquet(tmp_path / "channels" / f"{step:06d}.parquet")
        assert column(records, "turn_sum") == pytest.approx([sum(rewards) for rewards in of_step])
        assert column(records, "turn_1") == pytest.approx([rewards[0] if rewards else None for rewards in of_step])
