"""Readers: each layout gives the same record, and each malformed row names its place and the remedy."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from rvpo.data import RESERVED_COLUMNS, load_prompts, render_sft
from rvpo.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SYSTEM = "You may call these tools: 1. Name: tide_table Parameters: {}"
REPLIES = [
    '<think> The tides are asked for. </think>\n<tool_call>\n{"name": "tide_table", "parameters": {}}\n</tool_call>',
    "<think> Small talk. </think>\n<response> Good morning! </response>",
    "<think> Nothing to do. </think>",
]
TURNS = ["<user> When is high water? </user>", "<user> Hello </user>", "<user> Thanks, that was all. </user>"]


def messages(i: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": TURNS[i]}]


EXPECTED = [{"prompt": messages(i), "answer": REPLIES[i]} for i in range(3)]


def write_json(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def rlla_rows() -> list[dict]:
    return [{"instruction": SYSTEM, "input": TURNS[i], "output": REPLIES[i]} for i in range(3)]


def toolrl_rows() -> list[dict]:
    return [
        {
            "data_source": "rlla",
            "prompt": messages(i),
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": REPLIES[i]},
            "extra_info": {"index": i, "split": "train"},
        }
        for i in range(3)
    ]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Ten text prompts of 1 to 10 characters."""
    return write_jsonl(tmp_path / "texts.jsonl", [{"prompt": "x" * n, "answer": f"a{n}"} for n in range(1, 11)])


# --- the layouts ---------------------------------------------------------------------------------------


def write_layout(layout: str, folder: Path) -> Path:
    path = folder / "data"  # no suffix: detection goes by content
    if layout == "rlla":
        return write_json(path, rlla_rows())
    if layout == "rlla_parquet":
        return write_parquet(path, toolrl_rows())
    if layout == "jsonl":
        return write_jsonl(path, EXPECTED)
    if layout == "parquet":
        return write_parquet(path, EXPECTED)
    datasets.Dataset.from_list(EXPECTED).save_to_disk(path)
    return path


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("layout", ["rlla", "rlla_parquet", "jsonl", "parquet", "dataset"])
def test_every_layout_gives_the_same_records(layout: str, explicit: bool, tmp_path: Path) -> None:
    data = load_prompts(write_layout(layout, tmp_path), layout=layout if explicit else "auto")
    assert isinstance(data, datasets.Dataset)
    assert data.column_names == ["prompt", "answer"]
    assert data.to_list() == EXPECTED


def test_reference_columns_are_renamed_and_others_left_out(tmp_path: Path) -> None:
    rows = [{"question": "2 + 2?", "gold": "4", "weights": [1.0, 0.5], "id": 7}]
    data = load_prompts(
        write_jsonl(tmp_path / "x", rows),
        prompt_column="question",
        reference_columns={"answer": "gold", "rubric_weights": "weights"},
    )
    assert data.to_list() == [{"prompt": "2 + 2?", "answer": "4", "rubric_weights": [1.0, 0.5]}]


def test_toolrl_columns_can_be_kept(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x", toolrl_rows())
    data = load_prompts(path, reference_columns={"answer": "answer", "source": "data_source"})
    assert data["source"][:] == ["rlla"] * 3


def test_a_parquet_file_with_its_own_answer_is_not_taken_for_toolrl(tmp_path: Path) -> None:
    rows = [row | {"answer": "own"} for row in toolrl_rows()]
    assert load_prompts(write_parquet(tmp_path / "x", rows))["answer"][:] == ["own"] * 3


def test_null_keys_that_arrow_adds_to_messages_are_dropped(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi", "name": None}]
    data = load_prompts(write_parquet(tmp_path / "x", [{"prompt": turns, "answer": "a"}]))
    assert data[0]["prompt"] == [{"role": "user", "content": "Hi"}]


def test_byte_order_mark_and_line_separator_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x"
    line = json.dumps({"prompt": "one\u2028two", "answer": "a"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n")
    assert load_prompts(path)[0]["prompt"] == "one\u2028two"


# --- splits and the hub --------------------------------------------------------------------------------


def save_splits(path: Path, *names: str) -> Path:
    datasets.DatasetDict({name: datasets.Dataset.from_list(EXPECTED) for name in names}).save_to_disk(path)
    return path


def test_one_split_needs_no_name_and_two_do(tmp_path: Path) -> None:
    assert len(load_prompts(save_splits(tmp_path / "one", "train"))) == 3
    two = save_splits(tmp_path / "two", "train", "test")
    assert len(load_prompts(two, split="test")) == 3
    with pytest.raises(DataError, match=r"two: saw split=None; expected one of the splits \['test', 'train'\]"):
        load_prompts(two)
    with pytest.raises(DataError, match="saw split='dev'"):
        load_prompts(two, split="dev")


def test_a_dataset_without_splits_refuses_one(tmp_path: Path) -> None:
    path = write_layout("dataset", tmp_path)
    with pytest.raises(DataError, match=r"without splits and split='train'.*leave split out"):
        load_prompts(path, split="train")


def test_hub_id_calls_load_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fake(*args: object, **kwargs: object) -> object:
        calls.append((args, kwargs))
        return datasets.Dataset.from_list([{"question": "q", "answer": "a", "picture": b"..."}])

    monkeypatch.setattr(datasets, "load_dataset", fake)
    data = load_prompts("some-org/some.set", subset="main", split="train[:10]", prompt_column="question")
    assert calls == [(("some-org/some.set",), {"name": "main", "split": "train[:10]"})]
    assert data.to_list() == [{"prompt": "q", "answer": "a"}]


def test_hub_dataset_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> object:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"^org/name: saw no local file .*, and ConnectionError .*; next step: .*"):
        load_prompts("org/name")


def test_a_missing_file_is_not_taken_for_a_hub_id() -> None:
    with pytest.raises(DataError, match=r"^data/train\.jsonl: saw no such file"):
        load_prompts("data/train.jsonl")
    with pytest.raises(DataError, match="no such file"):
        load_prompts("nothing-here")


# --- order, selection, system prompt -------------------------------------------------------------------


def test_offset_and_limit(texts: Path) -> None:
    assert load_prompts(texts, offset=2, limit=3)["answer"][:] == ["a3", "a4", "a5"]
    assert len(load_prompts(texts, offset=8, limit=5)) == 2


def test_shuffled_ranges_are_disjoint_and_reproducible(texts: Path) -> None:
    train = load_prompts(texts, shuffle_seed=3, limit=7)["answer"][:]
    held_out = load_prompts(texts, shuffle_seed=3, offset=7)["answer"][:]
    assert sorted(train + held_out) == sorted(f"a{n}" for n in range(1, 11))
    assert train == load_prompts(texts, shuffle_seed=3, limit=7)["answer"][:]
    assert train + held_out != load_prompts(texts)["answer"][:]


def test_long_prompts_are_left_out_before_the_limit_and_counted(texts: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="rvpo.data"):
        data = load_prompts(texts, max_prompt_chars=4, offset=1, limit=9)
    assert data["answer"][:] == ["a2", "a3", "a4"]
    assert "6 of 10 prompts are longer than max_prompt_chars=4 and are left out" in caplog.text


def test_max_prompt_chars_counts_all_messages(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x", EXPECTED)
    exact = len(SYSTEM) + len(TURNS[1])  # the shortest of the three
    assert load_prompts(path, max_prompt_chars=exact)["answer"][:] == [REPLIES[1]]
    with pytest.raises(DataError, match=r"no row left of 3 .*keeps 0, offset=0.*raise max_prompt_chars"):
        load_prompts(path, max_prompt_chars=exact - 1)


def test_offset_beyond_the_end(texts: Path) -> None:
    with pytest.raises(DataError, match=r"no row left of 10 \(.*keeps 10, offset=10\).*lower offset"):
        load_prompts(texts, offset=10)


def test_system_prompt_replaces_adds_and_turns_text_into_chat(tmp_path: Path, texts: Path) -> None:
    new = {"role": "system", "content": "Be brief."}
    replaced = load_prompts(write_jsonl(tmp_path / "x", EXPECTED), system_prompt="Be brief.")
    assert replaced[0]["prompt"] == [new, messages(0)[1]]
    bare = [{"prompt": messages(0)[1:], "answer": "a"}]
    added = load_prompts(write_jsonl(tmp_path / "y", bare), system_prompt="Be brief.")
    assert added[0]["prompt"] == [new, messages(0)[1]]
    text = load_prompts(texts, system_prompt="Be brief.", limit=1)
    assert text[0]["prompt"] == [new, {"role": "user", "content": "x"}]


# --- malformed rows ------------------------------------------------------------------------------------

GOOD = {"prompt": "p", "answer": "a"}


def chat(*turns: object) -> dict[str, object]:
    return {"prompt": list(turns), "answer": "a"}


USER = {"role": "user", "content": "Hi"}
MALFORMED = {
    "no prompt": ({"answer": "a"}, r"field 'prompt': saw no such field \(the row has \['answer'\]\)"),
    "null prompt": ({"prompt": None, "answer": "a"}, "field 'prompt': saw null"),
    "wrong type": ({"prompt": 17, "answer": "a"}, "field 'prompt': saw int 17; expected a non-empty string, or"),
    "empty prompt": ({"prompt": "", "answer": "a"}, "field 'prompt': saw ''; expected text with at least one"),
    "blank prompt": ({"prompt": " \n", "answer": "a"}, "field 'prompt': saw ' .n'"),
    "no messages": (chat(), "field 'prompt': saw 0 messages"),
    "system only": (chat({"role": "system", "content": "s"}), "saw 1 messages without any text except in the system"),
    "message is text": (chat("Hi", USER), r"field 'prompt\[0\]': saw str 'Hi'; expected \{'role'"),
    "no role": (chat(USER, {"content": "x"}), r"field 'prompt\[1\].role': saw no such field"),
    "no content": (chat({"role": "user"}), r"field 'prompt\[0\].content': saw no such field"),
    "null content": (chat({"role": "user", "content": None}), r"'prompt\[0\].content': saw null"),
    "unknown role": (chat({"role": "human", "content": "x"}), "saw 'human'; expected one of system, .*'user'"),
    "role no text": (chat({"role": [], "content": "x"}), r"role': saw \[\]; expected one of system"),
    "content parts": (chat({"role": "user", "content": [{"type": "text"}]}), "content': saw list .*join the parts"),
    "further keys": (chat(USER | {"tool_calls": [1]}), r"further keys \['tool_calls'\]; expected only"),
    "key in a key": (chat(USER | {"con": 1}), r"further keys \['con'\]"),
    "no answer": (
        {"prompt": "p"},
        "field 'answer': saw no such field.*; next step: add the field to this row, or set prompt_column, or "
        "reference_columns .*`reference_columns: {}` for data without answers",
    ),
    "answer no text": (
        {"prompt": "p", "answer": [4]},
        r"field 'answer': saw list \[4\]; .*write the value as a string",
    ),
    "blank answer": ({"prompt": "p", "answer": " "}, "field 'answer': saw ' '; .*fill in the text"),
    "surrogate": ({"prompt": "a\ud800", "answer": "a"}, r"field 'prompt': saw the lone surrogate '\\ud800' at char"),
    "mixed prompts": (chat(USER), "field 'prompt': saw list .*; expected str, as in row 0"),
}


@pytest.mark.parametrize(("row", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_row_names_its_place(row: object, message: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [GOOD, GOOD, row, GOOD])
    with pytest.raises(DataError, match=r"train\.jsonl, row 2 \(line 3\), .*" + message) as caught:
        load_prompts(path)
    assert "; expected " in str(caught.value)
    assert "; next step: " in str(caught.value)
    assert len(str(caught.value)) < 600


NOT_ROWS = {
    "not JSON": (b"{'prompt'", r"saw b\"\{'prompt'.*Expecting property name.*layout='rlla'"),
    "not an object": (b"[1, 2]", r"saw list \[1, 2\]; expected one JSON object per line"),
    "not UTF-8": (b'{"prompt": "\xff"}', "'utf-8' codec can't decode"),
    "repeated key": (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' occurs twice"),
    "not a number": (b'{"prompt": "a", "answer": NaN}', "NaN is not JSON"),
    "nested too deep": (b"[" * 200_000, "recursion"),
}


@pytest.mark.parametrize(("line", "message"), NOT_ROWS.values(), ids=NOT_ROWS.keys())
def test_a_line_that_is_no_row(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=r"row 1 \(line 2\): .*" + message):
        load_prompts(path)


RLLA_MALFORMED = {
    "not an object": ("text", "x, row 1: saw str 'text'; expected an object"),
    "missing": ({"instruction": "i", "input": "u"}, "x, row 1, field 'output': saw no such field"),
    "wrong type": ({"instruction": "i", "input": ["u"], "output": "o"}, r"field 'input': saw list \['u'\]"),
    "blank": ({"instruction": "", "input": "u", "output": "o"}, "field 'instruction': saw ''"),
    "other data": (GOOD, r"object with the fields \['answer', 'prompt'\].*layout='json'"),
}


@pytest.mark.parametrize(("item", "message"), RLLA_MALFORMED.values(), ids=RLLA_MALFORMED.keys())
def test_malformed_rlla_json(item: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_prompts(write_json(tmp_path / "x", [rlla_rows()[0], item]))


def test_rlla_json_that_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"saw an object with the keys .*; expected a JSON list of objects"):
        load_prompts(write_json(tmp_path / "x", rlla_rows()[0]), layout="rlla")
    (tmp_path / "y").write_text('[{"instruction": ')
    with pytest.raises(DataError, match=r"y: saw invalid JSON \(Expecting value: line 1"):
        load_prompts(tmp_path / "y")


GROUND_TRUTHS = {
    "null struct": (None, "field 'reward_model': saw null"),
    "null truth": ({"style": "rule", "ground_truth": None}, "field 'reward_model.ground_truth': saw null"),
    "blank truth": ({"style": "rule", "ground_truth": ""}, "field 'reward_model.ground_truth': saw ''"),
}


@pytest.mark.parametrize(("model", "message"), GROUND_TRUTHS.values(), ids=GROUND_TRUTHS.keys())
def test_toolrl_row_without_ground_truth(model: object, message: str, tmp_path: Path) -> None:
    rows = toolrl_rows()
    rows[2]["reward_model"] = model
    with pytest.raises(DataError, match="x, row 2, " + message):
        load_prompts(write_parquet(tmp_path / "x", rows))


def test_toolrl_reward_model_of_another_kind(tmp_path: Path) -> None:
    rows = [row | {"reward_model": {"style": "rule"}} for row in toolrl_rows()]
    with pytest.raises(DataError, match=r"row 0, field 'reward_model.ground_truth': saw no such field"):
        load_prompts(write_parquet(tmp_path / "x", rows))
    rows = [row | {"reward_model": "rule"} for row in toolrl_rows()]
    with pytest.raises(DataError, match=r"row 0, field 'reward_model': saw str 'rule'; .*layout='parquet'"):
        load_prompts(write_parquet(tmp_path / "y", rows))


@pytest.mark.parametrize("layout", ["parquet", "dataset"])
def test_a_table_without_the_column(layout: str, tmp_path: Path) -> None:
    path = write_layout(layout, tmp_path)
    with pytest.raises(DataError, match=r"field 'gold': saw no such field \(the row has \['answer', 'prompt'\]\)"):
        load_prompts(path, reference_columns={"answer": "gold"})


# --- references that Arrow would refuse or change ------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (1, "a", "row 1 .*field 'ref': saw str 'a'; expected number, as in row 0"),
        (True, 1, "saw number 1; expected bool"),
        ([1], ["a"], "column 'ref': saw .*JSON string"),
        ({"x": 1}, {"y": 2}, r"row 0 .*saw \{'x': 1\}, which the column would store as \{'x': 1, 'y': None\}"),
        (2**70, 1, "column 'ref': saw .*"),
    ],
)
def test_reference_columns_are_stored_unchanged_or_refused(
    first: object, second: object, message: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "x", [GOOD | {"ref": first}, GOOD | {"ref": second}])
    with pytest.raises(DataError, match=message):
        load_prompts(path, reference_columns={"ref": "ref"})


def test_reference_values_of_one_type_pass(tmp_path: Path) -> None:
    rows = [GOOD | {"n": 1, "o": {"x": [1]}}, GOOD | {"n": 2.5, "o": {"x": []}}]
    data = load_prompts(write_jsonl(tmp_path / "x", rows), reference_columns={"n": "n", "o": "o"})
    assert data["n"][:] == [1, 2.5]
    assert data["o"][:] == [{"x": [1]}, {"x": []}]
    nan = load_prompts(write_parquet(tmp_path / "y", [GOOD | {"n": float("nan")}]), reference_columns={"n": "n"})
    assert nan["n"][0] != nan["n"][0]


# --- whole sources that cannot be read -----------------------------------------------------------------

CONTENTS = {
    "empty": (b"", "saw an empty file"),
    "blank": (b" \n\n", "saw an empty file"),
    "empty list": (b"[]", "saw 0 rows"),
    "text": (b"prompt,answer\n", r"starts with b'prompt,answer.*; expected JSONL .*a JSON list of objects, CSV"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "saw a Git LFS pointer.*git lfs pull"),
    "damaged parquet": (b"PAR1 and no footer", "expected a parquet file"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS.keys())
def test_files_without_rows(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match="x: .*" + message):
        load_prompts(tmp_path / "x")


def test_parquet_with_a_damaged_page(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x", EXPECTED)
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196  # after the magic bytes; the footer stays whole
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x: saw .* after row 0; expected intact parquet"):
        load_prompts(path)


def test_parquet_without_rows(tmp_path: Path) -> None:
    schema = pa.schema([("prompt", pa.string()), ("answer", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "x")
    with pytest.raises(DataError, match="saw 0 rows"):
        load_prompts(tmp_path / "x")


def test_folders_that_hold_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"part-0.parquet: saw .*; expected a parquet file"):
        load_prompts(tmp_path)
    with pytest.raises(DataError, match="save_to_disk, or pass one file"):
        load_prompts(tmp_path, layout="dataset")
    with pytest.raises(DataError, match=r"saw a folder; .*layout='dataset'"):
        load_prompts(tmp_path, layout="jsonl")


def test_a_wrong_layout_says_so(texts: Path) -> None:
    with pytest.raises(DataError, match=r"expected a parquet file.*real layout"):
        load_prompts(texts, layout="parquet")


# --- options -------------------------------------------------------------------------------------------

OPTIONS = [
    ({"layout": "xml"}, "layout='xml'; expected one of auto, rlla, rlla_parquet, jsonl"),
    ({"reference_columns": "answer"}, "reference_columns='answer'; expected a mapping"),
    ({"reference_columns": {"answer": 3}}, "a mapping of text to text"),
    ({"reference_columns": {"prompt": "answer"}}, "a result column 'prompt'"),
    ({"reference_columns": {"answer": "gold", "label": "gold"}}, r"reads \['gold'\] twice"),
    ({"prompt_column": ""}, "prompt_column=''"),
    ({"system_prompt": " "}, "system_prompt=' '"),
    ({"max_prompt_chars": 0}, "max_prompt_chars=0; expected a whole number of at least 1"),
    ({"limit": -1}, "limit=-1"),
    ({"limit": True}, "limit=True"),
    ({"offset": None}, "offset=None; expected a whole number of at least 0"),
    ({"shuffle_seed": "1"}, "shuffle_seed='1'"),
    ({"split": "train"}, "split='train' with layout='auto'.*name the file of that split"),
    ({"subset": "main"}, "subset='main' with layout='auto'"),
    ({"layout": "rlla", "prompt_column": "input"}, "prompt_column='input' with layout='rlla'"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_that_cannot_work(options: dict, message: str, texts: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_prompts(texts, **options)


@pytest.mark.parametrize("name", RESERVED_COLUMNS)
def test_reserved_result_columns_are_refused_with_the_remedy(name: str, texts: Path) -> None:
    with pytest.raises(ConfigError, match=rf"result column '{name}'.*such as \{{'reference_{name}': 'answer'\}}"):
        load_prompts(texts, reference_columns={name: "answer"})
    data = load_prompts(texts, reference_columns={f"reference_{name}": "answer"})
    assert data.column_names == ["prompt", f"reference_{name}"]


# --- supervised examples -------------------------------------------------------------------------------


def test_render_sft_chat_and_text(tmp_path: Path, texts: Path) -> None:
    chat_rows = render_sft(load_prompts(write_jsonl(tmp_path / "x", EXPECTED))).to_list()
    assert chat_rows == [
        {"prompt": messages(i), "completion": [{"role": "assistant", "content": REPLIES[i]}]} for i in range(3)
    ]
    assert render_sft(load_prompts(texts))[1] == {"prompt": "xx", "completion": "a2"}


def test_render_sft_needs_answers_and_rows(texts: Path) -> None:
    with pytest.raises(DataError, match=r"without \['answer'\].*reference_columns"):
        render_sft(load_prompts(texts, reference_columns={}))
    with pytest.raises(DataError, match="saw 0 rows"):
        render_sft(load_prompts(texts).select([]))


# --- the import stays cheap ----------------------------------------------------------------------------


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, rvpo.data; print({'datasets', 'pyarrow', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
