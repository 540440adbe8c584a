"""Run notebooks from top to bottom and store what they print in them: python examples/notebooks/run.py [NOTEBOOK …].

Plain Python is enough: their code has no magics apart from the line that installs, which is left out.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """Run the code cells of a notebook in one namespace.

    Args:
        notebook: the JSON of a notebook, format 4.
        name: of the notebook, for tracebacks.

    Returns:
        The same notebook with what each cell printed as its output.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        lines = "".join(cell["source"]).split("\n")
        code = "\n".join(line for line in lines if not line.startswith("%"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{name}, cell {number}", "exec"), names)  # noqa: S102 - our own notebooks
        text = printed.getvalue().splitlines(keepends=True)
        cell["execution_count"] = number
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
    return notebook


def main() -> None:
    """Run the notebooks that are named, or all, and write them back."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        notebook = run(json.loads(path.read_text(encoding="utf-8")), path.name)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {sum(cell['cell_type'] == 'code' for cell in notebook['cells'])} cells ran")


if __name__ == "__main__":
    main()
