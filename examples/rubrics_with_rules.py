"""A rubric per prompt, decided by rules: every criterion is a reward of its own, without a judge's server.

The prompts have rubrics of three and of two criteria. In rvpo.trl, pass `RubricReward(judge)` among the reward
functions, and each criterion becomes a channel. Needs the extras torch and judge.
Run it with: python examples/rubrics_with_rules.py
"""

import asyncio

import torch

import rvpo
from rvpo.judges import RuleJudge
from rvpo.rewards.rubric import Criterion, Rubric, RubricReward

TEA = Rubric(
    (
        Criterion("boil", "Says to boil the water.", rule={"contains_any": ["boil", "boiling"]}),
        Criterion("short", "At most 12 words.", rule={"max_words": 12}),
        Criterion("ai", "Calls itself an AI.", points=-2, rule={"contains_any": ["an AI"]}),  # meeting it is bad
    )
)
THANKS = Rubric(
    (
        Criterion("thanks", "Says thanks.", rule={"contains_any": ["thank", "thanks"]}),
        Criterion("one", "Is one sentence.", rule={"min_sentences": 1, "max_sentences": 1}),
    )
)
COMPLETIONS = {
    "How do I make black tea?": (
        TEA,
        ["Boil water and pour it over the leaves.", "As an AI, I would boil water.", "Buy a cup of it."],
    ),
    "Thank a neighbour in one sentence.": (
        THANKS,
        ["Thanks for the ladder!", "Thanks. It was a great help.", "The ladder is back."],
    ),
}


def main() -> None:
    """Score the completions, then turn the criteria of each prompt into advantages."""
    reward = RubricReward(RuleJudge())
    for prompt, (rubric, texts) in COMPLETIONS.items():
        columns = {"rubric": [rubric.to_json()] * len(texts)}
        explicit = asyncio.run(reward([prompt] * len(texts), texts, **columns))
        scores = [[score.value for score in row] for row in reward.latest]
        out = rvpo.advantages(torch.tensor(scores), num_generations=len(texts), method="rvpo")
        print(f"\n{prompt}   criteria: {', '.join(criterion.id for criterion in rubric.criteria)}")
        for text, row, mean, advantage in zip(texts, scores, explicit, out.advantages.tolist(), strict=True):
            print(f"  {text:<42} criteria {row}  weighted mean {mean:.2f}  advantage {advantage:+.2f}")


if __name__ == "__main__":
    main()
