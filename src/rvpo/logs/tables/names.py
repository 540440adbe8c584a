"""Interpret the names of columns: which role a column has, and whether its numbers are probably rewards.

A name is split into its parts: ``train/rewards/formatScore`` is under ``rewards`` and has the words format, score.
Names only propose. If a total or the advantages are logged, :mod:`rvpo.logs.tables.rewards` checks the proposal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def _words(text: str) -> list[str]:
    return text.split()


ROLES = {
    "group": _words(
        "group group_id gid group_idx group_index group_uid prompt_id prompt_uid uid example_id task_id "
        "_ng_task_index problem_id question_id query_id sample_group prompt_idx prompt_index example_idx "
        "task_index task_idx item_id data_id task/hash task/key "
        "task/data/idx task/data/prompt prompt_tokens id prompt prompts input inputs question problem query "
        "instruction"
    ),
    "step": _words(
        "step global_step training_step train_step trainer_step rollout_step optimizer_step current_step "
        "step_id step_idx _step gen_step generation_step policy_step update_step rl_step grpo_step ppo_step "
        "iteration iteration_id iteration_idx iter update"
    ),
    "advantage": _words("advantage advantages adv advs a_hat"),
    "prompt": _words("prompt prompts input inputs question problem query instruction"),
    "completion": _words(
        "completion completions response responses completion_text response_text generation generated generated_text "
        "decoded_completion model_output output outputs text answer traj trajectory messages"
    ),
    "phase": _words(
        "split phase mode stage dataset_split data_split partition eval is_eval evaluation is_evaluation is_validation "
        "is_val is_test is_train is_training training"
    ),
    "epoch": _words("epoch epoch_idx epoch_id current_epoch"),
    "run": _words("run run_id run_name experiment experiment_name exp_name"),
}
"""Usual names of columns that are not rewards, in lower case; earlier names have priority."""

TRAINING = frozenset(_words("train training rollout rollouts learn"))
EVALUATION = frozenset(_words("eval evaluation val valid validation test dev heldout held_out holdout"))
"""Words that name the phase of a row."""

LOGGED_UNDER = frozenset(_words("train training rollout rollouts trainer data batch"))
"""Prefixes that loggers add to all names."""

REWARD_OBJECTS = frozenset(
    _words(
        "reward rewards reward_components reward_component component_rewards components reward_funcs reward_functions "
        "reward_fns sub_rewards reward_breakdown reward_dict reward_details scores score_components reward_scores "
        "individual_rewards channels"
    )
)
TOTALS = frozenset(
    _words(
        "reward rewards score scores total sum overall combined weighted return returns total_reward total_rewards "
        "reward_total reward_sum sum_reward final_reward final_score reward_score score_total total_score "
        "overall_score overall_reward combined_reward combined_score weighted_reward weighted_score weighted_sum "
        "aggregate_reward reward_final aggregate aggregated all mean avg average mean_reward reward_mean avg_reward "
        "raw_reward env_reward episode_reward episode_return scalar_reward"
    )
)
"""Names of columns that are mostly sums of rewards. One of them may still be a reward, so it is checked."""

OUTCOMES = frozenset(
    _words(
        "acc accuracy accurate correct correctness success succeeded successful solved solve pass passed passes valid "
        "validity match matched matches format formatted formatting helpful helpfulness safe safety harmless "
        "harmlessness honest honesty truthful truthfulness factual factuality faithful faithfulness relevance "
        "relevant quality style tone fluency fluent coherence coherent complete completeness clarity clear concise "
        "conciseness brevity penalty bonus judge rubric rubrics em f1 bleu rouge rougel meteor bertscore win won "
        "preference toxicity toxic xml schema syntax compiles compiled tests grounded groundedness citation citations "
        "instruction reward rewards score grade rating language consistency overlong repetition tag tags structure "
        "politeness think thinking boxed execution executable unsafe refusal diversity novelty creativity "
        "empathy constraint constraints length cosine"
    )
)
"""Words in the names of rewards."""

FLAG_OUTCOMES = frozenset(
    _words(
        "acc accuracy accurate correct correctness success succeeded successful solved pass passed passes valid "
        "validity match matched matches format formatted safe won win compiles compiled em resolved reward score"
    )
)
"""Words that make a flag (true, false) a reward; other flags are states, such as truncated."""

HARD_ENDINGS = frozenset(
    _words(
        "ms s sec secs second seconds minute minutes us ns time times timestamp ts date count counts calls turns idx "
        "index version versions id ids at uid uuid step steps seed std stddev var weight weights rank epoch port pid "
        "hash latency duration elapsed runtime temperature lr attempts retries iteration attempt model size "
        "sizes"
    )
)
"""Last words in names of times, counters, ids or settings: never rewards, whatever words come before."""

SOFT_ENDINGS = frozenset(
    _words(
        "len length lengths tokens tok toks token chars words bytes num number kl loss entropy logprob logprobs logp "
        "logps prob probs perplexity ppl norm grad cost price usage min max mean median depth position offset start "
        "end row rows n level difficulty threshold limit budget truncated finished done baseline staleness lag clip "
        "ratio importance memory mem gpu throughput tps speed progress percent rate x y aborted stopped stop eos "
        "padded cached masked filtered skipped dropped error errored timeout enabled"
    )
)
"""Last words of names that are only rewards if marked: ``rewards/length`` is a reward, ``response_length`` is not."""

REFERENCES = frozenset(
    _words(
        "answer answers solution solutions gold golden target targets label labels truth ground gt gts expected "
        "predicted prediction predictions value reference references extracted guess guesses parsed final numeric"
    )
)
"""Words in names of expected or given answers, which may be numbers."""

FIRST_WORDS = frozenset(_words("num n count max min raw ref old total timing time usage sampling logprob is has"))
"""First words of counters and states."""

DERIVED = frozenset(
    _words(
        "raw normalized normalised norm standardized standardised whitened centered centred clipped unclipped scaled "
        "unscaled rescaled shaped weighted unweighted adjusted original final total sum combined aggregate "
        "aggregated overall mean avg average ema shifted discounted before after"
    )
)
"""Words that, next to "reward" or "score", name another form of the total: ``reward_raw``, ``normalized_reward``."""

# Letters with accents and those of other alphabets are letters, too.
_WORD = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_SEPARATOR = re.compile(r"/|\.(?!\d)|(?<!\d)\.(?=\d+(?:[/.]|$))")  # not the point in a version, such as gpt4.1


def key(name: str) -> str:
    """Return a name in lower case without the prefixes of loggers: ``train/global_step`` becomes ``global_step``."""
    parts = _parts(name)
    while len(parts) > 1 and parts[0].lower() in LOGGED_UNDER:
        parts = parts[1:]
    return "/".join(parts).lower()


def inner(name: str) -> str:
    """Return the last part of a name: ``train/rewards/format`` becomes ``format``."""
    parts = _parts(name)
    if len(parts) > 1 and parts[-1].lower() in ("score", "value", "reward") and _is_object(parts[-2:-1]):
        return parts[-1]
    return parts[-1]


def words(name: str) -> list[str]:
    """Return the words of the last part of a name, in lower case."""
    return [word.lower() for word in _WORD.findall(inner(name))]


def is_product(name: str, of: str) -> bool:
    """Whether a name is that of a weighted reward: ``weighted_rewards/format`` or ``format_weighted`` of ``format``."""
    return _words_more(name, of) == {"weighted"}


def is_form(name: str, of: str) -> bool:
    """Whether a name is that of another form of a reward: ``format_scaled`` or ``raw_rewards/format`` of ``format``."""
    more = _words_more(name, of)
    return more is not None and bool(more) and more <= DERIVED


def _words_more(name: str, of: str) -> set[str] | None:
    """Return the words that a name has more than another, "reward" and "score" aside; None if it lacks one."""
    longer, shorter = (
        {word.lower() for word in _WORD.findall(key(each))} - {"reward", "rewards", "score", "scores"}
        for each in (name, of)
    )
    return longer - shorter if shorter and shorter <= longer else None


def of_role(names: Iterable[str], role: str) -> list[str]:
    """Return the columns with a usual name of a role, the likeliest first."""
    usual = {name: place for place, name in enumerate(ROLES[role])}
    found = []
    for place, name in enumerate(names):
        whole, last = _folded(key(name)), _folded(inner(name))
        if whole in usual:
            found.append((0, usual[whole], place, name))
        elif last in usual and not _is_object(_parts(name)[:-1]):
            found.append((1, usual[last], place, name))  # inside an object, such as info.problem_id
    return [name for *_, name in sorted(found)]


def _folded(name: str) -> str:
    """Return a name as the lists above spell it: ``Prompt ID`` and ``prompt-id`` become ``prompt_id``."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_listed(name: str) -> bool:
    """Whether a column is inside an object of rewards: ``rewards/format``, ``reward_components.format``."""
    return _is_object(_parts(key(name))[:-1])


def is_marked(name: str) -> bool:
    """Whether a name says that a column is a reward: ``rewards/format``, ``score_format``, ``format_reward_func``."""
    parts = words(name)
    if is_listed(name) or len(parts) < 2:
        return is_listed(name)
    functions = (["reward", "func"], ["reward", "fn"], ["reward", "function"])
    begins, ends = (
        parts[0] in ("reward", "rewards", "score"),
        parts[-1] in ("reward", "rewards", "score", "rew", "component"),
    )
    return begins or ends or parts[-2:] in functions


def is_phase(value: str) -> bool:
    """Whether a value is the name of a phase, such as "train" or "eval"."""
    return value.strip().lower() in TRAINING | EVALUATION


def identifies_prompt(name: str) -> bool:
    """Whether a column is a prompt, or says in its name that it identifies prompts: ``prompt_id``, ``example_idx``."""
    parts = words(name)
    asked = {"prompt", "example", "problem", "question", "query"}
    ids = {"id", "idx", "index", "uid", "hash"}
    return is_prompt(name) or (len(parts) == 2 and parts[0] in asked and parts[1] in ids)


def is_prompt(name: str) -> bool:
    """Whether the name of a column is that of a prompt."""
    return _folded(inner(name)) in ROLES["prompt"]


def may_identify_groups(name: str) -> bool:
    """Whether an unusual name may be that of an id of groups: ``rollout_group``, ``task_uid``, ``dataset_item_id``."""
    parts = words(name)
    ids = {"id", "idx", "index", "uid", "uuid", "hash", "key", "gid"}
    grouped = {"group", "prompt", "example", "problem", "question", "query", "task", "item", "instance", "data"}
    if not parts or is_marked(name):
        return False
    return parts[-1] == "group" or (parts[-1] in ids and not grouped.isdisjoint(parts[:-1]))


def may_count_rows(name: str) -> bool:
    """Whether a column of ids may number the completions instead of the prompts."""
    return _folded(inner(name)) in ("id", "uid", "item_id", "data_id")


def counts_outcomes(name: str) -> bool:
    """Whether a column counts completions with an outcome: ``n_correct``, ``num_passed``, ``correct_count``."""
    parts = words(name)
    if len(parts) < 2:
        return False
    rest = set(parts[1:]) if parts[0] in ("n", "num", "number", "count") else set(parts[:-1])
    counted = parts[0] in ("n", "num", "number", "count") or parts[-1] in ("count", "counts")
    return counted and not rest.isdisjoint(OUTCOMES)


def begins_marked(name: str) -> bool:
    """Whether a column is marked by the beginning of its name, ``reward_format``, or by the object that contains it."""
    return is_listed(name) or words(name)[0] in ("reward", "rewards", "score")


def is_total(name: str) -> bool:
    """Whether a name is usual for a sum of rewards."""
    parts = words(name)
    if "_".join(parts) in TOTALS:
        return True
    rest = set(parts) - {"reward", "rewards", "score", "scores"}
    return 0 < len(rest) < len(set(parts)) and rest <= DERIVED


def is_outcome(name: str, flag: bool = False) -> bool:
    """Whether a name has a word that is usual for rewards, or for flags that are rewards."""
    return not set(words(name)).isdisjoint(FLAG_OUTCOMES if flag else OUTCOMES)


def is_hard(name: str) -> bool:
    """Whether a name is that of a time, a counter or a setting, even among rewards."""
    parts = words(name)
    if any("weight" in part.lower() for part in _parts(name)):
        return True
    return not parts or parts[-1] in HARD_ENDINGS or "index" in inner(name).lower().split("__")


def is_setting(name: str) -> bool:
    """Whether a name is that of a weight or a statistic of rewards, which is not a reward in any log."""
    parts = words(name)
    return any("weight" in part.lower() for part in _parts(name)) or not parts or parts[-1] in ("std", "stddev", "var")


def weighs(name: str) -> str | None:
    """Return whose weight a column has: ``reward_weights.format`` and ``format_weight`` have that of ``format``."""
    last = inner(name).lower()
    for pattern in (r"weights?_(.+)", r"(.+)_weights?"):
        if match := re.fullmatch(pattern, last):
            return match[1]
    before = [part.lower() for part in _parts(name)[:-1]]
    return last if any(part.endswith(("weight", "weights")) for part in before) else None


def is_foreign(name: str) -> bool:
    """Whether a name is that of another value that trainers log next to rewards."""
    parts = words(name)
    if is_hard(name) or _parts(name)[-1].startswith("_"):
        return True
    if REFERENCES.issuperset(parts) or parts[0] in REFERENCES:
        return True
    if parts[-1] == "rate" and is_outcome(name):
        return False
    return parts[-1] in SOFT_ENDINGS or (len(parts) > 1 and parts[0] in FIRST_WORDS) or parts[0] in SOFT_ENDINGS


def short(names: Iterable[str]) -> dict[str, str]:
    """Return a short name per reward, without a prefix that all share; the full names if short ones would clash."""
    names = list(names)
    for prefix in _prefixes(names[0]) if names else ():
        cut = [name.removeprefix(prefix) for name in names]
        if all(
            name.startswith(prefix) and rest and not rest.isdecimal() for name, rest in zip(names, cut, strict=True)
        ):
            return dict(zip(names, cut, strict=True))
    return {name: name for name in names}


def _prefixes(name: str) -> list[str]:
    """Return the prefixes of a name that only say that it is a reward, the longest first."""
    ends = [match.end() for match in re.finditer(r"[/.]", name)]
    start = ends[-1] if ends else 0
    if match := re.match(r"(?i:rewards?|scores?)_", name[start:]):
        ends.append(start + match.end())
    return [name[:end] for end in reversed(ends)]


def _parts(name: str) -> list[str]:
    return [part for part in _SEPARATOR.split(name) if part] or [name]


def _is_object(parts: Iterable[str]) -> bool:
    return any(part.lower() in REWARD_OBJECTS for part in parts)
