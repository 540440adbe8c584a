r"""Scores of `rvpo eval math` beside Math-Verify's own on generated pairs of a reference and a reply.

    python benchmarks/evals/math_vs_math_verify.py                 # 1,000 pairs, and the kinds that differ on purpose
    python benchmarks/evals/math_vs_math_verify.py --pairs 5000 --seed 1

Math-Verify's own score is ``verify(parse("$reference$"), parse(reply))`` with its defaults. Ours is that of the
benchmark: rows are written to a file, read by ``Math``, and scored from replies. References and replies are written in
the ways that data and models write them; about half of the replies are wrong, by a small change of the answer.

The second table has kinds in which the two differ by design; each line says why. Exit code 1 where other pairs differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from rvpo.evals.items import Reply
from rvpo.evals.math import Math

Pair = tuple[str, str]
"""An answer as the reference has it, and as a reply has it."""


def _grouped(n: int, gap: str) -> str:
    return f"{n:,}".replace(",", gap)


def integers(rng: random.Random, off: int) -> Pair:
    n = rng.choice([rng.randrange(1000), rng.randrange(1000, 10**7), -rng.randrange(1, 500)])
    given = n + off
    forms = [str(given), f"{given}.0", f"x = {given}", f"{given}\\text{{ apples}}", f"\\$ {given}"]
    if abs(given) >= 1000:
        forms = [str(given), _grouped(given, ","), _grouped(given, "{,}"), _grouped(given, ",\\!")]
    return rng.choice([str(n), _grouped(n, ",")]), rng.choice(forms)


def fractions(rng: random.Random, off: int) -> Pair:
    value = Fraction(rng.randrange(-40, 40) or 7, rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 20]))
    given = value + Fraction(off, rng.choice([1, 2, 4]))
    top, bottom = given.numerator, given.denominator
    sign, top = "-" if top < 0 else "", abs(top)
    forms = [
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"{sign}\\dfrac{{{top}}}{{{bottom}}}",
        f"{sign}\\frac{{{2 * top}}}{{{2 * bottom}}}",
        f"{sign}{top}/{bottom}",
    ]
    if bottom in (2, 4, 5, 8, 20):
        forms.append(str(float(given)))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}", rng.choice(forms)


def roots(rng: random.Random, off: int) -> Pair:
    a, b = rng.randrange(1, 12), rng.choice([2, 3, 5, 6, 7])
    c = a + off
    forms = [
        f"{c}\\sqrt{{{b}}}",
        f"\\sqrt{{{c * c * b}}}",
        f"\\frac{{{2 * c}\\sqrt{{{b}}}}}{{2}}",
        f"\\sqrt{{{b}}} \\cdot {c}",
    ]
    return f"{a}\\sqrt{{{b}}}", rng.choice(forms)


def angles(rng: random.Random, off: int) -> Pair:
    a, b = rng.randrange(1, 9), rng.choice([2, 3, 4, 6])
    forms = [
        f"\\frac{{{a + off}\\pi}}{{{b}}}",
        f"\\frac{{{a + off}}}{{{b}}}\\pi",
        f"\\pi \\cdot \\frac{{{a + off}}}{{{b}}}",
    ]
    return f"\\frac{{{a}\\pi}}{{{b}}}", rng.choice(forms)


def polynomials(rng: random.Random, off: int) -> Pair:
    a, b = rng.randrange(1, 9), rng.randrange(1, 9)
    forms = [f"x^2 + {a + b + off}x + {a * b}", f"(x+{a})(x+{b + off})", f"(x + {b + off})(x + {a})"]
    return f"x^2+{a + b}x+{a * b}", rng.choice(forms)


def tuples(rng: random.Random, off: int) -> Pair:
    a, b = rng.randrange(-9, 9), rng.randrange(1, 9)
    forms = [
        f"({a}, {b + off})",
        f"\\left({a},{b + off}\\right)",
        f"\\left( {a}, \\frac{{{2 * (b + off)}}}{{2}} \\right)",
    ]
    return f"({a}, {b})", rng.choice(forms)


def sets(rng: random.Random, off: int) -> Pair:
    values = rng.sample(range(-20, 100), 3)
    given = rng.sample(values, 3)
    given[0] += 200 * off
    text = ", ".join(map(str, given))
    return ", ".join(map(str, values)), rng.choice([text, f"\\{{{text}\\}}", f"\\left\\{{{text}\\right\\}}"])


def intervals(rng: random.Random, off: int) -> Pair:
    a, b = rng.randrange(-9, 0), rng.randrange(1, 9)
    forms = [f"[{a}, {b + off})", f"\\left[{a}, {b + off}\\right)"]
    return f"[{a},{b})", rng.choice(forms)


def percentages(rng: random.Random, off: int) -> Pair:
    a = rng.randrange(1, 99)
    return f"{a}\\%", rng.choice([f"{a + off}\\%", f"{a + off}%", f"{a + off}"])


def words(rng: random.Random, off: int) -> Pair:
    names = ["even", "odd", "east", "west", "Monday", "Friday"]
    wanted = rng.choice(names)
    given = rng.choice([name for name in names if name != wanted]) if off else wanted
    return f"\\text{{{wanted}}}", rng.choice([f"\\text{{{given}}}", f"\\mathrm{{{given}}}", f"\\textbf{{{given}}}"])


def choices(rng: random.Random, off: int) -> Pair:
    wanted = rng.choice("ABCDE")
    given = rng.choice([letter for letter in "ABCDE" if letter != wanted]) if off else wanted
    return wanted, rng.choice([given, f"\\text{{{given}}}", f"\\textbf{{({given})}}"])


KINDS: dict[str, Callable[[random.Random, int], Pair]] = {
    kind.__name__: kind
    for kind in (
        integers, fractions, roots, angles, polynomials, tuples, sets, intervals, percentages, words, choices,
    )
}  # fmt: skip

REPLIES = (
    "The answer is $\\boxed{%s}$.",
    "So we get\n\\[\\boxed{%s}\\]",
    "First try $\\boxed{999983}$.\n\nThat was wrong. Therefore\n\n$$\\boxed{%s}$$",
    "Step 1: add.\n\nFinal answer: \\boxed{%s}",
)
NO_ANSWER = ("I cannot tell.", "", "\\boxed{", "The answer is unknown \\boxed")

DIFFER: dict[str, tuple[Pair, ...]] = {
    "no box: the prompt asks for one, Math-Verify takes the last number": (
        ("42", "The answer is 42."),
        ("7", "it is $7$"),
    ),
    "boxes with words between: the last one counts": (("3", "\\boxed{2}, then \\boxed{3}"),),
    "small numbers, equal only when rounded to 6 digits": (("0.00000001", "\\boxed{0.00000002}"),),
    "gaps between groups of three digits": (("1234567", "\\boxed{1\\,234\\,567}"), ("1234567", "\\boxed{1 234 567}")),
    "characters as people write them": (
        ("90", "\\boxed{90°}"),
        ("\\frac12", "\\boxed{½}"),
        ("\\sqrt{2}", "\\boxed{√2}"),
        ("x^2", "\\boxed{x²}"),
        ("12", "\\boxed{\uff11\uff12}"),
    ),
    "mixed numbers and powers of ten": (("\\frac52", "\\boxed{2 1/2}"), ("0.0015", "\\boxed{1.5e-3}")),
    "digits in different bases": (("1010_2", "\\boxed{1010_3}"),),
}


def generated(pairs: int, seed: int) -> list[tuple[str, str, str]]:
    """Return (kind, reference, reply); every twentieth reply has no answer."""
    rng, names, made = random.Random(seed), list(KINDS), []
    for number in range(pairs):
        kind = names[number % len(names)]
        wanted, given = KINDS[kind](rng, rng.choice([0, 0, 1, 2]))
        reply = rng.choice(NO_ANSWER) if number % 20 == 19 else rng.choice(REPLIES) % given
        made.append((kind, wanted, reply))
    return made


def ours(pairs: list[tuple[str, str]]) -> list[float | None]:
    """Return the benchmark's scores of replies to references."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        rows = [{"problem": f"Problem {i}?", "answer": wanted, "id": str(i)} for i, (wanted, _) in enumerate(pairs)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        benchmark = Math(file, samples=1)
    items = benchmark.items()
    scored = asyncio.run(benchmark.score([(item, Reply(reply)) for item, (_, reply) in zip(items, pairs, strict=True)]))
    return [one.scores["avg@1"] for one in scored]


def own(wanted: str, reply: str) -> float:
    """Return Math-Verify's own score, with its defaults."""
    from math_verify import parse, verify

    return float(verify(parse(f"${wanted}$"), parse(reply)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable()
    made = generated(arguments.pairs, arguments.seed)
    scores = ours([(wanted, reply) for _, wanted, reply in made])
    equal, right, total = Counter[str](), Counter[str](), Counter[str]()
    for (kind, wanted, reply), score in zip(made, scores, strict=True):
        theirs = own(wanted, reply)
        total[kind] += 1
        equal[kind] += score == theirs
        right[kind] += theirs == 1.0
        if score != theirs:
            print(f"differs: {kind}: reference {wanted!r}, reply {reply!r}: ours {score}, Math-Verify's {theirs}")
    print(f"{'kind':<14}{'pairs':>7}{'equal':>7}{'right':>7}")
    for kind in KINDS:
        print(f"{kind:<14}{total[kind]:>7}{equal[kind]:>7}{right[kind]:>7}")
    print(f"{'all':<14}{total.total():>7}{equal.total():>7}{right.total():>7}\n\nby design:")
    for why, pairs in DIFFER.items():
        for (wanted, reply), score in zip(pairs, ours(list(pairs)), strict=True):
            print(f"  {why}: {wanted!r}, {reply!r}: ours {score}, Math-Verify's {own(wanted, reply)}")
    sys.exit(equal.total() < total.total())


if __name__ == "__main__":
    main()
