r"""What replies and references state as their answer."""

from __future__ import annotations

import pytest

from rvpo.rewards.math_answers import joined, reference_answers, reply_answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{1}" + "\n\n" + r"no: \boxed{2}", "2"),  # words between: the last one counts
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"$\boxed{2}$ and $\boxed{3}$", "2, 3"),
        (r"\boxed{2}, \boxed{3} or \(\boxed{5}\)", "2, 3, 5"),
        (r"\boxed{4} and \boxed{4}", "4"),
        ("16 - 3 = 13\n#### 1,234\n", "1,234"),
        ("#### $18", "18"),
        ("#### Step 1\nadd them up", None),  # a heading
        (r"#### 7 but \boxed{8}", "8"),
        ("the answer is 42", None),
        (r"\boxed{}", None),
        (r"\boxed{7}. As asked, it is in \boxed{}.", "7"),
        (r"\boxed{7}, \boxed{8} \boxed{ }", "7, 8"),
        (r"\boxed{1", None),
        (r"\boxed{" + "1" * 1001 + "}", None),
        ("", None),
        (r"\boxed 5", None),
    ],
)
def test_replies(reply: str, answer: str | None):
    assert reply_answer(reply) == answer


@pytest.mark.parametrize(
    "hostile", ["\\boxed{1}," * 50_000, "\\boxed{" * 50_000, "\\boxed{{" * 50_000 + "}" * 99, "#" * 10**6]
)
def test_hostile_replies_are_read_at_once(hostile: str):
    answer = reply_answer(hostile)
    assert answer is None or len(answer) <= 1000


@pytest.mark.parametrize(
    ("reference", "answers"),
    [
        ("42", ["42"]),
        (42, ["42"]),
        (142.0, ["142"]),  # a table with a missing value makes numbers decimals
        (0.5, ["0.5"]),
        (1e-07, ["0.0000001"]),  # which Math-Verify would read as e - 7
        ("1e-07", ["0.0000001"]),
        ([2.5e-05, -1e-6], ["0.000025", "-0.000001"]),
        ("1.5e+20", ["150000000000000000000"]),
        ("2e-3", ["2e-3"]),  # twice Euler's number less three
        ("070", ["070"]),
        (r"$\frac{1}{2}$", [r"\frac{1}{2}"]),
        (r"\(\pi\)", [r"\pi"]),
        (r"\[x^2\]", ["x^2"]),
        (r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}", [r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}"]),
        (r"the cost is \boxed{\$5}", [r"\$5"]),
        ("He pays 5*6=<<5*6=30>>30\n#### 1,030", ["1,030"]),
        ([r"$-1,7$"], ["-1,7"]),  # OlympiadBench: several answers in one text
        (["2", "3"], ["2", "3"]),
        ('["34"]', ["34"]),
        ("[1, 2]", ["[1, 2]"]),  # an interval, not a list
        ([3, 4.0], ["3", "4"]),
        ("", []),
        ("  ", []),
        (None, []),
        (True, []),
        (float("nan"), []),  # a missing number of a table
        ([1.0, float("inf")], []),
        (["1", ""], []),
        ({"a": 1}, []),
        ([["1"]], []),
        (r"unclosed \boxed{1", []),
        ("9" * 1001, []),
        ("9 + 9\n#### 18\nThe answer is: 18", ["18"]),  # MetaMathQA
        ("We add both. Then the answer is $18$.", ["18."]),
        ("Final answer: 18", ["18"]),
        ("The answer is not unique", ["not unique"]),
        ("nan", []),
        ("N/A", []),
        ("<NA>", []),
        (["1", "nan"], []),
        ("None", ["None"]),  # an answer: none of the numbers
    ],
)
def test_references(reference: object, answers: list[str]):
    assert reference_answers(reference) == answers


def test_several_answers_are_one_of_several_values():
    assert joined(["2", "3", "2"]) == "2, 3"
    assert joined([]) is None
    assert joined(["1" * 600, "2" * 600]) is None
