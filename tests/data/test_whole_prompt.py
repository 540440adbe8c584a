"""A part of the prompt in another column is joined and said, or refused by name; it is never dropped."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rvpo.data import load_prompts
from rvpo.errors import DataError

pytest.importorskip("datasets")

STORY = "Dan had 3 dollars and found 2."
ASKED = {"question": "How much has he?", "answer": 5}


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["Body", "context", "passage", "story", "Background"])
def test_a_story_is_joined_with_its_question(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        [record] = load_prompts(jsonl(tmp_path, ASKED | {name: STORY}))
    assert record == {"prompt": f"{STORY}\n\nHow much has he?", "answer": "5"}
    assert f"prompt = {name} + question" in caplog.text


PARTS: dict[str, dict[str, Any]] = {
    "facts": ASKED | {"facts": STORY},
    "facts as a list": ASKED | {"facts": [STORY]},
    "two of them": ASKED | {"body": STORY, "context": "In May, at home."},
    "a longer name": ASKED | {"case_scenario": STORY},
    "input of a problem": {"problem": "How much?", "input": "3 2", "answer": 5},
    "context of a prompt": {"prompt": "How much?", "context": STORY, "answer": 5},
    "choices": ASKED | {"choices": ["4", "five"], "answer": "B"},
    "choices by label": ASKED | {"options": {"A": "4", "B": "five"}, "answer": "B"},
    "choices in columns": ASKED | {"A": "4", "B": "7", "C": "five", "answer": "C"},
    "tools": {"query": "Is it warm?", "tools": [{"name": "weather"}], "answer": "weather()"},
    "tools as JSON text": {"query": "Is it warm?", "functions": '[{"name": "weather"}]', "answer": "weather()"},
    "numbers": {"question": "N_00 apples and N_01 pears?", "nums": "3 2", "answer": 5},
    "numbers as a list": {"question": "<num1> apples and <num2> pears?", "list": [3, 2], "answer": 5},
    "numbers in words": {"Question": "number0 apples and number1 pears?", "Numbers": "3 2", "Answer": 5},
    "a column per placeholder": {"question": "{count} apples and a pear?", "count": 4, "answer": 5},
    "an object per prompt": {"question": "{x} apples and {y} pears?", "vars": {"x": 3, "y": 2}, "answer": 5},
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_prompt_is_refused_by_name(name: str, tmp_path: Path):
    path = jsonl(tmp_path, PARTS[name])
    with pytest.raises(DataError, match=r"next to the prompt.*(prompt_column=|reference_columns=)"):
        load_prompts(path)
    prompt = next(key for key in ("question", "Question", "problem", "query", "prompt") if key in PARTS[name])
    if prompt != "prompt":
        assert load_prompts(path, prompt_column=prompt)[0]["prompt"] == PARTS[name][prompt]


def test_what_the_messages_propose_works(tmp_path: Path):
    path = jsonl(tmp_path, PARTS["facts"])
    joined = f"{STORY}\n\nHow much has he?"
    assert load_prompts(path, prompt_column="facts + question")[0]["prompt"] == joined
    with pytest.raises(DataError, match=r"no column 'fact'.*correct prompt_column"):
        load_prompts(path, prompt_column="fact + question")
    path = jsonl(tmp_path, PARTS["context of a prompt"])
    kept = load_prompts(path, reference_columns={"answer": "answer", "context": "context"})
    assert kept[0] == {"prompt": "How much?", "answer": "5", "context": STORY}


WHOLE: dict[str, dict[str, Any]] = {
    "the story is told": {"question": f"{STORY} How much?", "body": STORY, "answer": 5},
    "the choices are told": {"question": "4 or five?", "choices": ["4", "five"], "answer": "five"},
    "the prompt as it was shown": ASKED | {"text": "Q: How much has he? A: 5"},
    "a formula": {"question": r"Simplify \frac{x}{y}.", "x": "1", "answer": "2"},
    "a label": ASKED | {"story_type": "easy", "context_id": "c one two", "choice": "B", "documents": []},
    "tools that are told": {"query": "Call weather now.", "tools": [{"name": "weather"}], "answer": "a"},
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_prompt_is_left_alone(name: str, tmp_path: Path):
    prompt = WHOLE[name].get("question", WHOLE[name].get("query"))
    assert load_prompts(jsonl(tmp_path, WHOLE[name]))[0]["prompt"] == prompt


@pytest.mark.parametrize("name", ["hint", "Stem", "what_happened"])
def test_equal_prompts_with_different_answers_lack_a_text(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [
        {"question": "Which?", name: f"It is {colour} and large.", "label": "x", "answer": colour}
        for colour in ("red", "blue")
    ]
    path = jsonl(tmp_path, *rows)
    with pytest.raises(DataError, match=rf"row 1 .*another answer \('blue', there 'red'\).*\['{name}'\]"):
        load_prompts(path)
    assert load_prompts(path, prompt_column=f"{name} + question")[0]["prompt"] == "It is red and large.\n\nWhich?"
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        load_prompts(path, prompt_column="question")
    assert "2 of 2 rows repeat a prompt with another answer" in caplog.text


def test_answers_that_only_look_different_are_equal(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = [{"question": "Which?", "hint": f"It is {c} and large.", "answer": a} for c, a in (("a", "1"), ("b", "1.0"))]
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        assert len(load_prompts(jsonl(tmp_path, *rows))) == 2
    assert "another answer" not in caplog.text
