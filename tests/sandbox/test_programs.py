"""The program in a reply."""

from __future__ import annotations

import pytest

from rvpo.sandbox.programs import program_after, program_of


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
        ("1. So:\n\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1\n"),
        ("- a\n    - b\n        ```python\n        x = 1\n\n        y = 2\n        ```", "x = 1\n\ny = 2\n"),
        ("\t```python\n\tif x:\n\t\ty = 1\n\t```", "if x:\n\ty = 1\n"),
        ("  ```python\ndef f():\n  return 1\n  ```", "def f():\n  return 1\n"),
        ("```python\ns = '''\n    ```\n'''\n```", "s = '''\n    ```\n'''\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
        ("```python\ns = 'a\u2028b'\n```", "s = 'a\u2028b'\n"),
        ("```python\ns = 'a\x0cb\x85'\n```", "s = 'a\x0cb\x85'\n"),
        ("<think>\n```python\nx = 1\n```\nBut", None),
        ("\n<thinking>```python\nx = 1\n```", None),
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


STUB = 'def f(x):\n    """Double."""\n'
BODY = "    return 2 * x\n"


@pytest.mark.parametrize(
    ("prompt", "reply", "program"),
    [
        (STUB, BODY, STUB + BODY),
        (STUB, BODY + "\nThat's all (I think.\n", STUB + BODY + "\n"),
        (STUB, BODY + "```\nThe function doubles.", STUB + BODY),
        (STUB, BODY + "\ndef g():\n    pass\n\nNote: see above\n", STUB + BODY + "\ndef g():\n    pass\n\n"),
        (STUB, BODY + "\n# More\nprint('a)\ndef h(:\n", STUB + BODY + "\n# More\n"),
        (STUB, "    return 2 *\nThat is all.", STUB + "    return 2 *\nThat is all."),
        (STUB, "Sure! Here it is:\n" + BODY, STUB + "Sure! Here it is:\n" + BODY),
        ("double = ", "lambda x: 2 * x\nThis is it.", "double = lambda x: 2 * x\n"),
        (STUB.rstrip(), "\n" + BODY + 'Say """that', STUB + BODY),
        (STUB, "\x00", STUB + "\x00"),
        (STUB, "(" * 5000, STUB + "(" * 5000),
    ],
)
def test_a_program_after_its_prompt_ends_before_prose(prompt: str, reply: str, program: str) -> None:
    assert program_after(prompt, reply) == program
