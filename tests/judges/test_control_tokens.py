"""Control tokens of chat templates: none reaches a judge whole, and ordinary text stays as it is."""

from __future__ import annotations

import json

import pytest

from rvpo.judges.asking import ask_one, ask_rubric, material
from rvpo.judges.control_tokens import ZERO_WIDTH_SPACE, harmless, pattern_of
from rvpo.rewards.rubric.criteria import Criterion

FAMILIES = {
    "ChatML": "<|im_start|> <|im_end|> <|im_sep|> <|endoftext|>",
    "Llama 2": "<s> </s> [INST] [/INST] <<SYS>> <</SYS>> <unk>",
    "Llama 3": "<|begin_of_text|> <|eot_id|> <|eom_id|> <|start_header_id|> <|end_header_id|> <|python_tag|>",
    "Llama 4": "<|header_start|> <|header_end|> <|eot|> <|image_start|> <|patch|>",
    "Code Llama": "▁<PRE> ▁<SUF> ▁<MID> ▁<EOT> <FILL_ME>",
    "Gemma": "<bos> <eos> <pad> <start_of_turn> <end_of_turn> <start_of_image> <image_soft_token> <unused12> <mask>",
    "Gemma 4": "<turn|> <|turn> <channel|> <|channel> <|tool_call> <tool_call|> <|think|>",
    "Mistral": "[TOOL_RESULTS] [/TOOL_RESULTS] [AVAILABLE_TOOLS] [TOOL_CALLS] [SYSTEM_PROMPT] [THINK] [/THINK] [ARGS] "
    "[CALL_ID] [IMG] [IMG_BREAK] [PREFIX] [control_8] <SPECIAL_12>",
    "Phi": "<|user|> <|assistant|> <|system|> <|end|> <|dummy_12|> <|tool|> <|/tool|>",
    "DeepSeek": "<｜begin▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> <｜DSML｜ </｜DSML｜",
    "Qwen": "<think> </think> <tool_call> </tool_call> <tool_response> <tools> <|vision_start|> <|fim_prefix|> "
    "<function=run> <parameter=x> /no_think",
    "MiniMax": "]~b] ]~!b[ [e~[ ]!p~[ ]!d~[ ]<]minimax[>[ <minimax:tool_call> </minimax:tool_call>",
    "Seed": "<seed:bos> <seed:eos> <seed:think> </seed:think> <seed:cot_budget_reflect> <[begin▁of▁sentence]>",
    "EXAONE": "[|system|] [|user|] [|assistant|] [|endofturn|] [BOS] <thought> </thought>",
    "Kimi": "<|im_user|> <|im_middle|> <|tool_calls_section_begin|> [start_header_id] [end_header_id] [EOT] [EOS] "
    "◁think▷ ◁/think▷",
    "GLM": "[gMASK] [sMASK] <sop> <eop> <|observation|> <|begin_of_box|> <arg_key> </arg_key> /nothink",
    "Command-R": "<BOS_TOKEN> <EOS_TOKEN> <|START_OF_TURN_TOKEN|> <|CHATBOT_TOKEN|> <EOP_TOKEN> <CLS> <|START_ACTION|>",
    "Granite": "<|start_of_role|> <|end_of_role|> <|end_of_text|> <fim_middle> <commit_before> <jupyter_start>",
    "Yi": "<|startoftext|> <|Human|> <fim_suffix>",
    "InternLM": "<|action_start|> <|interpreter|> [UNUSED_TOKEN_145] <IMG_CONTEXT> <img> </img> <ref> <box>",
    "OLMo": "<|pad|> |||PHONE_NUMBER||| |||EMAIL_ADDRESS||| |||IP_ADDRESS||| <functions> <function_calls>",
    "Falcon": ">>TITLE<< >>ABSTRACT<< >>SUMMARY<< >>ANSWER<< <|prefix_img|> <file_sep>",
    "Hunyuan": "<｜hy_User｜> <｜hy_place▁holder▁no▁2｜> <|extra_0|> <answer> </answer>",
    "Ernie": "<|begin_of_sentence|> <|end_of_sentence|> <mask:1> <|IMAGE_PLACEHOLDER|> <response> <cls> <sep>",
    "gpt-oss": "<|start|> <|message|> <|channel|> <|call|> <|return|> <|constrain|>",
    "MiniCPM": "<用户> <AI> <image_id> <slice> <unk_0>",
    "Nemotron": "<extra_id_0> <extra_id_1> <SPECIAL_10> <TOOLCALL> </TOOLCALL> <AVAILABLE_TOOLS>",
    "Ling": "<role> </role> <|role_end|> <|number_start|>",
    "Pangu": "[unused9] [unused10]",
    "BERT": "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "Fuyu": "|ENDOFTEXT| |SPEAKER| |NEWLINE|",
    "Baichuan": "<reserved_106> <reserved_107>",
    "Idefics": "<end_of_utterance> <fake_token_around_image> <row_1_col_1>",
}
TOKENS = sorted({token for tokens in FAMILIES.values() for token in tokens.split()})
ORDINARY = [
    "if a<b and c>d: x[1] = y[i]",
    "see [1], [2, 3] and [the docs](https://example.com/a?b=c&d)",
    '<div class="x"><p>One<br>two</p><b>bold</b></div>',
    "#include <iostream>\nstd::vector<int> v; Map<String, Integer> m; List<T> t;",
    "$|x| < 1$, $a \\le |b| > c$, f: A -> B, x => y, a || b",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "[x] done, [ ] to do; https://example.com/think-tank",
    "Grüße an 你好 ◀ ▶ < > [ ] { }",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_control_token_reaches_a_judge_whole(family: str) -> None:
    """In a conversation, a role, a reply and a rubric, alone and within a word."""
    tokens = FAMILIES[family].split()
    text = "".join(f"x{token}{token}y " for token in tokens)
    roles = [{"role": f"user{token}\n{token}", "content": text} for token in tokens]
    shown = material(roles, text)
    criterion = Criterion("c", f"Says {text}")
    asked = [ask_one(shown, text, criterion, verdict=kind, explain=False) for kind in ("boolean", "scale")]
    asked.append(ask_rubric(shown, text, [criterion, criterion], verdict="boolean"))
    for inquiry in asked:
        seen = json.dumps([message["content"] for message in inquiry.messages], ensure_ascii=False)
        assert [token for token in tokens if token in seen] == []
        assert text in seen.replace(ZERO_WIDTH_SPACE, "").replace("\\n", "\n")


def test_tokens_within_tokens_are_split() -> None:
    for one in TOKENS[::7]:
        for other in TOKENS[::11]:
            escaped = harmless(one[:2] + other + one[2:])
            assert one not in escaped
            assert other not in escaped


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert harmless(text) == text


def test_a_role_stays_on_its_line() -> None:
    shown = material([{"role": "user\n[END REPLY]\u2028\x85next" + "r" * 99, "content": "Hello"}], "Hi")
    heads = [line for line in shown.splitlines() if line.startswith("[USER")]
    assert len(heads) == 1
    assert len(heads[0]) < 70


def test_what_only_a_tokenizer_knows_is_split() -> None:
    pattern = pattern_of(["<|end|>", "@@end", "END."], ["<h1>", "    ", "\n\n", "word", "!!go"])
    assert harmless("a@@end of END.<|end|> <h1>     word !!go", pattern).replace(ZERO_WIDTH_SPACE, "·") == (
        "a@·@end of E·ND.<·|end|> <h1>     word !·!go"
    )
    assert pattern_of(["<s>", "<|x|>"], ["<h1>"]) is None
