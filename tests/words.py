"""Check that our texts use plain words: docstrings, comments, messages, help texts, docs.

    python tests/words.py             # list every idiom in rooms above their limit; exit 1 if there is one
    python tests/words.py --all       # list every idiom
    python tests/words.py --count     # one line per room: count today, limit, count at the start
    python tests/words.py --lower     # write today's counts into words.toml where they are lower

The limits are in words.toml, one per room. A room that is not in words.toml has the limit 0. Limits only go down.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMITS = Path(__file__).with_suffix(".toml")
FOLDERS = ("src/rvpo", "docs", "examples", "benchmarks", "recipes", "tests")
ENDINGS = (".py", ".md", ".yaml", ".toml", ".ipynb", ".html", ".js")
OURSELVES = ("words.py", "words.toml", "test_words.py")

THINGS = (
    "reward|run|seed|step|prompt|item|folder|group|completion|channel|criterion|file|batch|line|row|column|task|"
    "question|process|call|reply|sample|benchmark|epoch|model|check|token|version|rule|method|turn|rollout|metric|pair|server"
)
SMALL = (
    r"(?:of|in|at|as|is|if|or|and|for|to|by|on|when|where|that|than|then|with|from|over|like|within|after|before|lacks|has|"
    r"gets)\b"
)

# An idiom, and what to write instead. Case matters: `is none` is an idiom, `is None` is Python.
IDIOMS = (
    (rf"\b(?:[Aa]n?|[Oo]ne|[Tt]wo|[Tt]hree|\d+) (?!{SMALL})\w+ an? (?:{THINGS})\b", "per: one column per reward"),
    (rf"\b[Oo]ne an? (?:{THINGS})\b", "per: one per reward"),
    (r"\ballowed (?:is|are)\b(?! not None| None)", "expected: k is -1; expected a number >= 0"),
    (
        r"(?<!here )\b(?:is|are|was|were) no "
        r"(?!longer|more|less|fewer|later|worse|better|larger|smaller|higher|lower|\w+er than)\w+",
        "is not, are not",
    ),
    (r"\b(?:is|are|was|were|be) none\b", "does not exist, is absent, None if absent"),
    (r"\b[Tt]ell(?:s|ing)?\b", "show, report, say, determine, distinguish"),
    (r"\b(?:is|are|was|were|be|been|not) told\b", "is informed, knows, is given"),
    (r"\btold (?:apart|by|how|of|that|what|whether|why)\b", "shown by, informed of"),
    (r"\b[Mm]end(?:s|ed|ing)?\b", "fix"),
    (r"\bbehind\b(?! (?:an?|the|its|one|such a|[Oo]pen\w+) (?:server|endpoint|proxy|firewall|API|address))", "after"),
    (r"\b[Bb]eside\b", "next to, besides"),
    (r"\b(?:be|been|was|were) had\b|\b(?:could|can|cannot) be had\b", "is missing, is available"),
    (r"\b[Ss]hall\b", "must, should, will"),
    (r"\bwhat lies\b|\bwhatever lies\b|\bhow far .{1,20} lies?\b", "name the thing: the lines after, the values below"),
    (r"\b[Ss]tands\b|\bstood\b|\bstand\b(?! (?:for|out|in)\b)", "is, contains, holds a value"),
    (r"\b[a-z_]+: [Oo]f ", "a noun first: `seed: random seed of the bootstrap`"),
    (r"\b[Aa]s of (?:these|those|it|this|that|them)\b", "as in, as for"),
    (r"(?<=[.;,:] )(?:Else|else) (?=\w+ )(?!if\b)(?=[a-z])", "otherwise"),
    (r"\b[Bb]ut for\b", "except for"),
    (r"\b[Ff]or (?:want|lack) of\b", "without, because there is not"),
    (r"\b[Ll]est\b|\bwhence\b|\bthereof\b|\bwherein\b|\bhence\b|\bthither\b|\bwhereupon\b", "so that, from which, so"),
    (r"\b(?:[Ww]hoever|[Ww]hosoever)\b", "users who, code that"),
    (r"\b(?:is|are|was|were|be|being) taken for\b", "is treated as"),
    (r"\b(?:is|are) due\b(?! to)", "is needed, comes next"),
    (r"\bin vain\b|\bof no avail\b", "without success"),
    (r"\bknown by\b", "identified by"),
    (r"\bis (?:big|small) news\b|\bno news\b", "say what it means"),
    (r"\b[Nn]or (?:is|are|does|do|has|have|can|could|will|was|were)\b", "a new sentence: It also is not"),
)
COMPILED = [(re.compile(idiom), instead) for idiom, instead in IDIOMS]
# What begins or ends a line of a comment, a quotation or a string, and is not part of its sentence.
MARK = re.compile(r"^\s*(?:#:?|//|>|f?[\"'])\s|^\s*f?[\"']|[\"']$")


class Hit(NamedTuple):
    """An idiom in a file."""

    room: str
    place: str  # path:line
    text: str
    instead: str


def files(root: Path) -> Iterator[Path]:
    """Yield our own files with text in them, in order."""
    yield from sorted(root.glob("*.md"))
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in ENDINGS and path.name not in OURSELVES and path.is_file():
                yield path


def room(path: Path, root: Path) -> str:
    """Return the part of the project that a file belongs to: `src/rvpo/core`, `docs`, `README.md`."""
    parts = path.relative_to(root).parts
    if parts[:2] == ("src", "rvpo"):
        return "/".join(parts[:3] if len(parts) > 3 else parts[:2])
    return parts[0]


def hits(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, idiom as written, and what to write instead. An idiom may go over a line break."""
    flat, starts, lines = "", [], []
    for number, line in enumerate(text.split("\n"), 1):
        words = MARK.sub("", line).split()
        if words:
            starts.append(len(flat))
            lines.append(number)
            flat += " ".join(words) + " "
    for pattern, instead in COMPILED:
        for match in pattern.finditer(flat):
            yield lines[bisect_right(starts, match.start()) - 1], match.group().strip(), instead


def find(root: Path = ROOT) -> list[Hit]:
    """Return every idiom in the project."""
    found = []
    for path in files(root):
        name, here = path.relative_to(root).as_posix(), room(path, root)
        for line, text, instead in sorted(hits(path.read_text(encoding="utf-8"))):
            found.append(Hit(here, f"{name}:{line}", text, instead))
    return found


def read_limits(path: Path) -> dict[str, dict[str, int]]:
    """Return {room: {"start": count at the start, "limit": count that is accepted today}}."""
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_limits(path: Path, limits: dict[str, dict[str, int]]) -> None:
    """Write the limits, one line per room."""
    head = "# Idioms per room: at the start, and how many tests/words.py still accepts. It lowers them with --lower.\n"
    lines = [f'"{name}" = {{start = {n["start"]}, limit = {n["limit"]}}}\n' for name, n in sorted(limits.items())]
    path.write_text(head + "".join(lines), encoding="utf-8")


def check(found: list[Hit], limits: dict[str, dict[str, int]]) -> tuple[list[str], list[str]]:
    """Return what fails, and rooms whose limit can be lowered."""
    counts = Counter(hit.room for hit in found)
    faults, lower = [], []
    for name in sorted(counts | Counter(dict.fromkeys(limits, 0))):
        limit = limits.get(name, {"limit": 0})["limit"]
        if counts[name] > limit:
            faults += [f"{hit.place}: {hit.text!r} -> {hit.instead}" for hit in found if hit.room == name]
            faults.append(f"{name}: {counts[name]} idioms; expected at most {limit}. Rewrite the new ones")
    for name, limit in limits.items():
        if counts[name] < limit["limit"]:
            lower.append(f"{name}: {counts[name]} idioms, limit {limit['limit']}: lower the limit")
    return faults, lower


def main(arguments: list[str] | None = None, root: Path = ROOT, limits_file: Path = LIMITS) -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description="Check that our texts use plain words.")
    parser.add_argument("--count", action="store_true", help="print one line per room and exit with 0")
    parser.add_argument("--all", action="store_true", help="list every idiom and exit with 0")
    parser.add_argument("--lower", action="store_true", help="lower the limits in words.toml to today's counts")
    asked = parser.parse_args(arguments)
    found, limits = find(root), read_limits(limits_file)
    counts = Counter(hit.room for hit in found)

    if asked.all:
        print("\n".join(f"{hit.place}: {hit.text!r} -> {hit.instead}" for hit in found))
        return 0
    if asked.count:
        print(f"{'room':24}{'today':>7}{'limit':>7}{'start':>7}")
        for name in sorted({*counts, *limits}):
            known = limits.get(name, {"limit": 0, "start": 0})
            print(f"{name:24}{counts[name]:7}{known['limit']:7}{known['start']:7}")
        total = [sum(n[key] for n in limits.values()) for key in ("limit", "start")]
        print(f"{'all':24}{sum(counts.values()):7}{total[0]:7}{total[1]:7}")
        return 0
    if asked.lower:
        for name, known in limits.items():
            known["limit"] = min(known["limit"], counts[name])
        write_limits(limits_file, limits)
    faults, lower = check(found, limits)
    for line in faults + lower:
        print(line)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
