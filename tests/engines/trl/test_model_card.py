"""The model card names the method that was really used, and cites its paper or says that it has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tiny_run import make_trainer
from trl import GRPOTrainer

import rvpo
from rvpo.core.methods.base import Paper
from rvpo.core.methods.registry import METHODS, build_method
from rvpo.engines.trl.model_card import paper_of
from rvpo.trl import RVPOMixin

# What the docstring of each method's module says of its source.
SOURCES = {
    "rvpo": "2605.05750",
    "rvpo_explicit": "2605.05750",
    "hard_min": "2605.05750",
    "gdpo": "2601.05242",
    "grpo": "2402.03300",
    "ctwa": "2602.06869",
    "riskpo": "2510.00911",
    "smooth_tchebycheff": "2402.19078",
    "lagrangian": "1805.11074",
    "dara": "2610.00574",
    "sa_mrpo": "2608.16072",
    "saw": "2606.07705",
    "dvao": "2605.25604",
    "corr_grpo": "2609.36820",
    "gd2po": "2606.16771",
    "verpo": "2601.03525",
    "mgda": "1810.04650",
    "tchebycheff": None,  # Steuer and Choo 1983, not at arXiv
}
OURS = {"lift", "lift_z"}
OPTIONS = {"lagrangian": {"thresholds": {"even": 0.5}}}


@pytest.fixture(scope="module")
def card(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that builds a trainer with a method and returns the text of its card."""

    def build(method: object, **options: object) -> str:
        folder = tmp_path_factory.mktemp("card")
        trainer = make_trainer(tiny_model_dir, folder, method=method, **options)
        trainer.create_model_card(model_name="tiny")
        return (folder / "README.md").read_text("utf-8")

    return build


def test_every_method_says_where_it_comes_from():
    assert METHODS.keys() == SOURCES.keys() | OURS
    for name, arxiv in SOURCES.items():
        paper = METHODS[name].paper
        assert paper is not None
        assert paper.arxiv == arxiv
        assert f"{{{paper.title}}}" in paper.citation
    assert all(METHODS[name].paper is None for name in OURS)


@pytest.mark.parametrize("name", ["gdpo", "grpo", "rvpo", "ctwa", "lagrangian"])
def test_card_cites_the_paper_of_the_method(card: Callable[..., str], name: str):
    text = card({"name": name, **OPTIONS.get(name, {})})
    assert f"huggingface.co/papers/{SOURCES[name]}" in text
    assert f"arXiv:{SOURCES[name]}" in text
    assert f"- {name}\n" in text
    others = {arxiv for other, arxiv in SOURCES.items() if arxiv and arxiv != SOURCES[name]}
    assert not [arxiv for arxiv in others if arxiv in text]


@pytest.mark.parametrize("method", ["lift", "lift:kappa=3", "lift_z"])
def test_card_says_that_ours_has_no_paper(card: Callable[..., str], method: str):
    text = card(method)
    name = {"lift": "LIFT", "lift_z": "LIFTZ"}[method.split(":")[0]]
    assert f"This model was trained with {name} (`{method}`), a method of the rvpo package that has no paper." in text
    assert "huggingface.co/papers" not in text
    assert not [arxiv for arxiv in SOURCES.values() if arxiv and arxiv in text]


@dataclass(frozen=True)
class Halved(rvpo.RVPO):
    """A method of somebody's own, which is not the published one that it derives from."""


@dataclass(frozen=True)
class Published(rvpo.GDPO):
    paper = Paper("Somebody's own paper", "2701.00001")


def test_a_method_of_ones_own_is_not_the_one_that_it_derives_from(card: Callable[..., str]):
    assert paper_of(Halved()) is None
    text = card(Halved())
    assert "a method of the user's own without a paper" in text
    assert "2605.05750" not in text
    assert "papers/2701.00001" in card(Published())


def test_card_has_no_paths_of_the_machine(card: Callable[..., str], tmp_path: Path):
    rule = tmp_path / "my_rules.py"
    rule.write_text("def mean(z, p):\n    return (z * p).sum(-1)\n")
    text = card(f"{rule}:mean")
    assert "`my_rules.py:mean`" in text
    assert str(tmp_path) not in text


def test_a_trainer_of_ones_own_keeps_its_tags(tiny_model_dir: Path, tmp_path: Path):
    class Theirs(GRPOTrainer):
        _tag_names = ["trl", "theirs"]  # noqa: RUF012

    class Mine(RVPOMixin, Theirs):
        pass

    make_trainer(tiny_model_dir, tmp_path, trainer=Mine, method="gdpo").create_model_card(model_name="tiny")
    text = (tmp_path / "README.md").read_text("utf-8")
    assert all(f"- {tag}\n" in text for tag in ("theirs", "rvpo", "gdpo"))
    assert Theirs._tag_names == ["trl", "theirs"]  # one trainer says nothing of the next


def test_method_is_known_by_its_text():
    assert build_method("gdpo").paper is rvpo.GDPO.paper
