"""The generated parts of the reference pages, as Markdown, from the source itself.

A page holds a line ``<!-- generated: NAME -->``; :func:`fill` puts the part of that name in its place when the site is
built. Except for the command line, the source is parsed and not imported, so that no torch is needed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rvpo"
MARK = re.compile(r"^<!-- generated: ([\w-]+) -->(?:\n> .*)*$", re.MULTILINE)
"""The mark, with the quoted lines after it, which only a reader of the unbuilt page sees."""


def fill(text: str) -> str:
    """Return the text of a page with its generated parts."""
    return MARK.sub(lambda match: PARTS[match[1]](), text)


# --- metrics ---


def metrics() -> str:
    """Return a table of every metric: the catalogue of ``core/metrics.py``."""
    catalogue: dict[str, str] = ast.literal_eval(_value_of("CATALOGUE", _tree("core/metrics.py")))
    return _table(("metric", "meaning"), [(f"`{name}`", meaning) for name, meaning in catalogue.items()])


# --- methods ---


@dataclass(frozen=True)
class Option:
    """An option of a method: ``default`` is the source text of its default value."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class MethodPage:
    """What the source of a method says of it."""

    name: str
    class_name: str
    summary: str
    file: str
    options: tuple[Option, ...]


def method_pages() -> list[MethodPage]:
    """Return all methods, in the order in which the registry lists them."""
    found = {page.class_name: page for path in sorted((SOURCE / "core" / "methods").glob("*.py")) for page in _of(path)}
    registry = _value_of("METHODS", _tree("core/methods/registry.py"))
    (listed,) = [node for node in ast.walk(registry) if isinstance(node, ast.Tuple)]
    return [found[node.id] for node in listed.elts if isinstance(node, ast.Name)]


def _of(path: Path) -> Iterator[MethodPage]:
    """Yield the methods of a file: classes derived from ``Method`` that have a name of their own."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef) or "Method" not in [ast.unparse(base) for base in node.bases]:
            continue
        meanings = _attributes(ast.get_docstring(node) or "")
        constants, options = {}, []
        for line in node.body:
            if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
                continue
            name, annotation = line.target.id, ast.unparse(line.annotation)
            if annotation.startswith("ClassVar"):
                constants[name] = line.value
            else:
                options.append(Option(name, annotation, _default(line.value), meanings.get(name, "")))
        if "name" in constants:
            name, summary = (ast.literal_eval(constants[key]) for key in ("name", "summary"))
            yield MethodPage(name, node.name, summary, path.name, tuple(options))


def _default(value: ast.expr) -> str:
    """Return the default of a dataclass's field as text, also where a factory makes it."""
    words = {word.arg: word.value for word in value.keywords} if isinstance(value, ast.Call) else {}
    factory = words.get("default_factory")
    if factory is None:
        return ast.unparse(value)
    return ast.unparse(factory.body) if isinstance(factory, ast.Lambda) else {"dict": "{}"}[ast.unparse(factory)]


def methods() -> str:
    """Return a section per method: its summary and its options."""
    sections = []
    for page in method_pages():
        link = f"[`{page.file}`](../../src/rvpo/core/methods/{page.file})"
        rows = [(f"`{o.name}`", f"`{o.default}`", o.meaning) for o in page.options]
        options = _table(("option", "default", "meaning"), rows) if rows else "No options of its own."
        sections.append(
            f"## `{page.name}`\n\n{page.summary[0].upper()}{page.summary[1:]}. "
            f"Object: `rvpo.{page.class_name}`. Source: {link}.\n\n{options}"
        )
    return "\n\n".join(sections)


def _attributes(docstring: str) -> dict[str, str]:
    """Return the entries of a docstring's section ``Attributes``."""
    _, _, section = docstring.partition("Attributes:\n")
    entries: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r" {4}(\w+): (.*)", line):
            name = match[1]
            entries[name] = match[2]
        elif name and line.strip():
            entries[name] += " " + line.strip()
        elif not line.strip():
            name = ""
    return entries


# --- options of a training ---


def options() -> str:
    """Return a table of the options that ``RVPOConfig`` adds to ``GRPOConfig``: their help texts."""
    rows = []
    for file, name in (("step/options.py", "AggregationOptions"), ("engines/trl/config.py", "RVPOConfig")):
        for option, value in _fields(_tree(file), name):
            given = {word.arg: word.value for word in value.keywords} if isinstance(value, ast.Call) else {}
            if "metadata" not in given:
                continue
            meaning = _help_of(given["metadata"], METHOD_HELP)
            rows.append((f"`{option}`", f"`{ast.unparse(given['default'])}`", _plain(meaning)))
    return _table(("option", "default", "meaning"), rows)


METHOD_HELP = "How rewards become advantages, such as `lift:kappa=3`; see [how to spell a method](../methods.md)."


def _help_of(metadata: ast.expr, otherwise: str) -> str:
    """Return the literal ``help`` of a field's metadata; another text where it is made by a call."""
    assert isinstance(metadata, ast.Dict)
    (value,) = metadata.values
    return str(value.value) if isinstance(value, ast.Constant) else otherwise


def recipe() -> str:
    """Return a table per section of a recipe, from the classes in ``recipe.py``."""
    tree = _tree("recipe.py")
    sections = []
    for title, name in RECIPE_SECTIONS.items():
        rows = []
        for key, value in _fields(tree, name):
            default, meaning = _pydantic_field(value)
            rows.append((f"`{key}`", default, meaning or RECIPE_MEANINGS.get((name, key), "")))
        sections.append(f"### {title}\n\n" + _table(("key", "default", "meaning"), rows))
    return "\n\n".join(sections)


RECIPE_SECTIONS = {
    "The recipe": "Recipe",
    "`model`": "ModelSection",
    "`data`, `eval_data`": "DataSection",
    "Each entry of `rewards`": "RewardSection",
    "`warm_start`": "WarmStartSection",
    "`evals`": "EvalsSection",
    "Each entry of `evals.benchmarks`": "BenchmarkSection",
}

# Keys whose class has no description, because its name says it or another page does.
RECIPE_MEANINGS = {
    ("Recipe", "name"): "Name of the run. Its folder is `output`/`name`.",
    ("Recipe", "output"): "Folder of the runs.",
    ("Recipe", "seed"): "Random seed of the training.",
    ("Recipe", "model"): "Section: the model that is trained.",
    ("Recipe", "data"): "Section: the prompts, and the columns that rewards need.",
    ("Recipe", "eval_data"): "Section: prompts of an evaluation during training.",
    ("Recipe", "rewards"): "List of sections. A text alone is the name of a reward function.",
    ("Recipe", "warm_start"): "Section: a supervised start.",
    ("Recipe", "evals"): "Section: benchmarks during training.",
    ("Recipe", "trainer"): "Any option of `RVPOConfig`, TRL's included.",
    ("DataSection", "path"): "File, folder or hub id. The other keys are the arguments of `rvpo.data.load_prompts`.",
    ("RewardSection", "options"): "Options of the reward, if it is a class.",
    ("WarmStartSection", "data"): "Section: examples of prompts and replies.",
    ("BenchmarkSection", "benchmark"): "Name of the benchmark.",
    ("EvalsSection", "benchmarks"): "List of sections.",
}


def _pydantic_field(value: ast.expr | None) -> tuple[str, str]:
    """Return the default, as text, and the description of a field of a pydantic class."""
    if value is None:
        return "required", ""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "Field"):
        return f"`{ast.unparse(value)}`", ""
    words = {word.arg: word.value for word in value.keywords}
    default = f"`{ast.unparse(value.args[0])}`" if value.args else "required"
    return default, _plain(ast.literal_eval(words["description"])) if "description" in words else ""


def _fields(tree: ast.Module, name: str) -> list[tuple[str, Any]]:
    """Return the names and values of the fields of a class; the value is None where there is no default."""
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    lines = [line for line in found.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    return [(ast.unparse(line.target), line.value) for line in lines]


# --- record ---

# Columns whose names say what they hold, so that schema.py has no comment on them.
PLAIN_COLUMNS = {
    "reward_function": "name of the reward function",
    "text": "text of the criterion; null for a reward function that is one channel",
    "labels": "labels of the criterion: its category, then its tags",
    "detail": "what went wrong, in the words of the judge or the function",
    "live": "whether the channel is scored and ranks its group",
    "responsibility": "derivative of the method's value by z: how far this channel decided",
}


def record() -> str:
    """Return the columns of a run's record, from the comments of ``logs/schema.py``."""
    text = (SOURCE / "logs" / "schema.py").read_text("utf-8")
    body = text[text.index("SCHEMA = pa.schema(") :]
    body = body[: body.index("\n)\n")]
    rows = []
    for name, kind, comment in re.findall(r'^ +"(\w+)": pa\.(.+?),(?:  # (.*))?$', body, re.MULTILINE):
        meaning = comment or PLAIN_COLUMNS[name]
        plain = re.sub(r"pa\.|\(\)", "", kind)
        rows.append((f"`{name}`", f"`{plain}`", meaning))
    columns = _table(("column", "type", "meaning"), rows)
    _, _, about = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")
    return f"{columns}\n\n## Files and metadata\n\n{from_rst(about)}"


# --- command line ---


def cli() -> str:
    """Return a section per command, with its arguments and options, from the commands themselves."""
    import typer.main

    from rvpo.cli.app import app

    sections: list[str] = []
    _commands(typer.main.get_command(app), "rvpo", sections)
    return "\n\n".join(sections)


def _commands(command: Any, path: str, sections: list[str]) -> None:
    inner = getattr(command, "commands", {})
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    words = [path, *(["COMMAND"] if inner else []), *(p.name.upper() for p in arguments)]
    usage = " ".join([*words, "[OPTIONS]"] if options else words)
    parts = [f"## `{path}`", _plain(command.help or ""), f"```text\n{usage}\n```"]
    if arguments:
        rows = [(f"`{p.name.upper()}`", _plain(getattr(p, "help", "") or "")) for p in arguments]
        parts.append(_table(("argument", "meaning"), rows))
    if options:
        parts.append(_table(("option", "default", "meaning"), [_option(p) for p in options]))
    sections.append("\n\n".join(parts))
    for name, one in inner.items():
        _commands(one, f"{path} {name}", sections)


def _option(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is None or default is False or callable(default) or default in ((), [], ""):
        shown = ""
    else:
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return names, shown, _plain(getattr(parameter, "help", "") or "")


# --- helpers ---


def from_rst(text: str) -> str:
    """Return a docstring as Markdown: roles become code, and a block after ``::`` stays an indented block."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return re.sub(r"\s*::$", ":", text, flags=re.MULTILINE)


def _plain(text: str) -> str:
    """Return a help text without the marks that wrap it to a terminal."""
    return from_rst(text.replace("\b\n", "").replace("\b", "")).strip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(("---",) * len(head)), *map(line, rows)])


def _tree(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text("utf-8"))


def _value_of(name: str, tree: ast.Module) -> ast.expr:
    """Return the expression that a module assigns to a name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and name in [ast.unparse(target) for target in node.targets]:
            return node.value
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and node.value is not None:
            return node.value
    raise LookupError(f"{name} is not assigned in this module")


PARTS: dict[str, Callable[[], str]] = {
    "metrics": metrics,
    "methods": methods,
    "options": options,
    "recipe": recipe,
    "record": record,
    "cli": cli,
}
