"""The model card names the method with which a model was really trained, and cites its publication."""

from __future__ import annotations

import re
from typing import Any

from rvpo.core.methods.base import Method, Paper
from rvpo.core.methods.registry import METHODS, spell


def describe(trainer: Any) -> None:
    """Set the attributes that TRL's ``create_model_card`` reads: name, paper and tags of a trainer's method.

    Args:
        trainer: trainer that has its ``aggregator`` already; its own ``_tag_names`` are kept.
    """
    method = trainer.aggregator.config.method
    paper = paper_of(method)
    trainer._name = _name(method, paper)
    trainer._paper = {} if paper is None else {"title": paper.title, "id": paper.arxiv, "citation": paper.citation}
    trainer._tag_names = [*dict.fromkeys([*trainer._tag_names, "rvpo", _tag(method)])]


def paper_of(method: Method) -> Paper | None:
    """Return a method's publication. A class that derives from a published method is not that method."""
    if METHODS.get(method.name) is type(method):
        return method.paper
    return vars(type(method)).get("paper")


def _name(method: Method, paper: Paper | None) -> str:
    """Return the method as a card names it, such as ``RVPO (`rvpo:k=2`)``."""
    text = f"`{_without_folders(spell(method))}`"
    if METHODS.get(method.name) is not type(method):
        return f"{text}, a method of the user's own" + ("" if paper else " without a paper that rvpo knows")
    named = f"{type(method).__name__} ({text})"
    return named if paper else f"{named}, a method of the rvpo package that has no paper"


def _tag(method: Method) -> str:
    """Return the name of a method as a tag of the hub."""
    return re.sub(r"[^\w-]+", "-", _without_folders(method.name)).strip("-").lower()


def _without_folders(text: str) -> str:
    """Remove folders from the path of a user's method: a card is public, paths of a machine are not."""
    return re.sub(r"[^\s:=,{]*[/\\]", "", text)
