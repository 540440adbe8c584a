"""The program in a reply."""

from __future__ import annotations

import pytest

from rvpo.sandbox.programs import program_of


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```\nor\n```python3\nx = 2\n```\nbye", "x = 2\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nOutput:\n```\n1\n```", "x = 1\n"),
        ("```Python title=a\nx = 1\n```", "x = 1\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("<think>```python\nx = 1\n```</think>```python\nx = 2\n```", "x = 2\n"),
        ("def f(x):\n    return x\n", "def f(x):\n    return x\n"),
        ("print(1)", "print(1)"),
        ("```python\nx = 1", None),
        ("```json\n{}\n```", None),
        ("I cannot.", None),
        ("yes", None),
        ("42", None),
        ("", None),
        ("(" * 200_000, None),
        ("```python\n\n```", None),
    ],
)
def test_programs(reply: str, program: str | None):
    assert program_of(reply) == program
