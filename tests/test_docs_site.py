"""The docs site without building it: navigation, links with their anchors, generated pages, llms.txt."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import rvpo
from rvpo.cli.app import app
from rvpo.core.methods.registry import METHODS
from rvpo.core.metrics import CATALOGUE
from rvpo.logs.schema import SCHEMA
from rvpo.recipe import (
    BenchmarkSection,
    DataSection,
    EvalsSection,
    ModelSection,
    Recipe,
    RewardSection,
    WarmStartSection,
)
from rvpo.step.options import AggregationOptions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUTSIDE_THE_SITE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md",
                    "benchmarks/README.md", "tests/README.md")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def hooks():
    """The modules that mkdocs loads; hooks.py imports its neighbours by name."""
    sys.path.insert(0, str(DOCS / "_hooks"))
    yield
    sys.path.remove(str(DOCS / "_hooks"))


def hook(name: str) -> Any:
    return importlib.import_module(name)


class _Config(yaml.SafeLoader):
    """mkdocs.yml names environment variables by a tag of its own."""


_Config.add_constructor("!ENV", lambda loader, node: "")


def nav() -> list[Any]:
    config = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), _Config)
    return hook("hooks").expanded(config["nav"], DOCS)


def text_of(page: Path) -> str:
    return hook("generated").fill(page.read_text("utf-8"))


def test_the_navigation_names_every_page_once():
    named = [page for _, page in hook("llms")._pages(nav(), "") if page is not None]
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in hook("links").pages(DOCS))


def all_pages() -> list[Path]:
    return [*hook("links").pages(DOCS), *(ROOT / name for name in OUTSIDE_THE_SITE)]


def test_every_link_leads_somewhere():
    links = hook("links")
    texts = {page.resolve(): text_of(page) for page in all_pages()}
    followed, broken = 0, []
    for page, text in texts.items():
        for target in links.links(text):
            if target.startswith(links.OUTSIDE):
                continue
            followed += 1
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}: no such file")
            elif anchor and (file not in texts or anchor not in links.anchors(texts[file])):
                broken.append(f"{page.relative_to(ROOT)}: {target}: no such heading")
    assert not broken, "\n".join(broken)
    assert followed > 300


def test_links_and_anchors_are_read_as_the_site_reads_them():
    links = hook("links")
    text = "# A `b`: c, d?\n\n## Same\n\n## Same\n\n[x](y.md#z) `[no](code.md)` ![p](q.png)\n\n```\n[no](x)\n# no\n```"
    assert list(links.links(text)) == ["y.md#z", "q.png"]
    assert links.anchors(text) == {"a-b-c-d", "same", "same_1"}


def test_links_into_the_source_lead_to_the_repository_or_are_plain_text():
    source_links = hook("hooks").source_links
    text = "[the code](../src/rvpo/trl.py) and [a page](glossary.md)\n\n```md\n[kept](../x)\n```\n"
    page = DOCS / "index.md"
    assert source_links(text, page, "").startswith("the code and [a page](glossary.md)\n")
    led = source_links(text, page, "https://example.org/rvpo/")
    assert led.startswith("[the code](https://example.org/rvpo/blob/main/src/rvpo/trl.py) and [a page](glossary.md)\n")
    assert led.endswith("```md\n[kept](../x)\n```\n")
    with pytest.raises(FileNotFoundError, match=r"docs/index\.md links to \.\./nothing\.py"):
        source_links("[x](../nothing.py)", page, "")


def test_llms_txt_has_every_page_with_a_description():
    text = hook("llms").llms_txt(nav(), DOCS, "https://example.org/")
    lines = [line for line in text.splitlines() if line.startswith("- [")]
    assert len(lines) == len(hook("links").pages(DOCS))
    for line in lines:
        assert re.fullmatch(r"- \[[^\]]+\]\(https://example\.org/\S*\): \S.{10,}", line), line


# --- generated pages ---


def rows(part: str) -> list[list[str]]:
    """Return the cells of the tables of a generated part."""
    lines = [line for line in hook("generated").PARTS[part]().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_reference_lists_every_metric():
    listed = [row for row in rows("metrics") if row[0].startswith("`rvpo/")]
    assert listed == [[f"`{name}`", meaning] for name, meaning in CATALOGUE.items()]


def test_the_reference_lists_every_option_of_every_method():
    pages = hook("generated").method_pages()
    public = {name: getattr(rvpo, name) for name in rvpo.__all__}
    assert [page.name for page in pages] == list(METHODS)
    for page in pages:
        method = METHODS[page.name]
        own = [field for field in dataclasses.fields(method) if field.name not in ("whiten", "dead_channels")]
        assert [option.name for option in page.options] == [field.name for field in own], page.name
        for option in page.options:
            assert option.meaning, f"{page.name}: {option.name} has no line under Attributes"
            (field,) = [field for field in own if field.name == option.name]
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            assert eval(option.default, public) == default, f"{page.name}: {option.name}"


def test_the_reference_lists_every_column_of_the_record():
    listed = [row[0].strip("`") for row in rows("record") if row[0].startswith("`")]
    assert listed == SCHEMA.names
    assert all(row[2] for row in rows("record"))


def test_the_reference_lists_every_command_with_its_options():
    text = hook("generated").cli()

    def check(command: Any, path: str) -> None:
        assert f"## `{path}`\n" in text
        section = text.split(f"## `{path}`\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
                assert f"`{parameter.opts[0]}`" in section, path
        for name, one in getattr(command, "commands", {}).items():
            check(one, f"{path} {name}")

    check(typer.main.get_command(app), "rvpo")


def test_the_reference_lists_every_key_of_a_recipe():
    listed = [row[0].strip("`") for row in rows("recipe") if row[0].startswith("`")]
    sections = (Recipe, ModelSection, DataSection, RewardSection, WarmStartSection, EvalsSection, BenchmarkSection)
    assert listed == [key for section in sections for key in section.model_fields]


def test_the_reference_lists_every_option_of_the_aggregation():
    listed = [row[0].strip("`") for row in rows("options")]
    assert set(listed) >= {field.name for field in dataclasses.fields(AggregationOptions)}
    assert {"reward_timeout", "skip_dead_groups"} <= set(listed)


def test_a_page_names_parts_that_exist():
    generated = hook("generated")
    named = [name for page in hook("links").pages(DOCS) for name in generated.MARK.findall(page.read_text("utf-8"))]
    assert sorted(named) == sorted(generated.PARTS)
