"""Sample every prompt of a rubric recipe from each checkpoint of a sweep and judge the replies; resumable.

    python benchmarks/rubrics/evaluate.py recipes/smollm2-rubrics-cpu.yaml runs/rubrics --samples 2 --parallel 2

Writes ``{run}/eval/{checkpoint}.parquet`` (columns as in a run's verdicts, as far as they apply), the untrained model's
to ``{sweep}/base.parquet``, and prints the table: mean over seeds of the share of criteria that are satisfied.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

METHODS = ["explicit", "grpo", "gdpo", "rvpo", "rvpo_k1", "hard_min"]
LABELS = ["essential", "important", "optional", "pitfall"]


def judge_one(recipe_path: Path, checkpoint: Path | None, out: Path, samples: int, batch: int) -> None:
    """Generate and judge with one checkpoint; None is the untrained model."""
    import torch
    from peft import PeftModel

    from rvpo.engines.trl.loading import load_data, load_model, load_tokenizer
    from rvpo.recipe import load_recipe
    from rvpo.rewards.registry import load_reward

    recipe = load_recipe(recipe_path)
    model, tokenizer = load_model(recipe.model, None), load_tokenizer(recipe.model)
    if checkpoint is not None:
        model = PeftModel.from_pretrained(model, str(checkpoint)).merge_and_unload()
    model.eval()
    data = load_data(recipe.data)
    prompts = [prompt for prompt in data["prompt"] for _ in range(samples)]
    rubrics = [rubric for rubric in data["rubric"] for _ in range(samples)]
    torch.manual_seed(0)
    completions = []
    for start in range(0, len(prompts), batch):
        inputs = tokenizer.apply_chat_template(
            prompts[start : start + batch],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        )
        with torch.inference_mode():
            # TRL's sampling: temperature 1, nothing cut off.
            ids = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=recipe.trainer["max_completion_length"],
                pad_token_id=tokenizer.pad_token_id,
            )
        completions += tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    reward = load_reward("rubric", recipe.rewards[0].options)
    asyncio.run(reward(prompts, completions, rubric=rubrics))
    rows = [
        {
            "completion": i,
            "group": i // samples,
            "criterion": score.channel,
            "text": score.text,
            "labels": list(score.labels),
            "reward": score.value,
            "reason": score.reason,
            "reply": completions[i],
        }
        for i, scores in enumerate(reward.latest)
        for score in scores
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(out.with_suffix(".partial"))
    out.with_suffix(".partial").rename(out)


def main() -> None:
    """Evaluate what is not evaluated yet, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--samples", type=int, default=2, help="replies a prompt")
    parser.add_argument("--batch", type=int, default=45)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--checkpoints", nargs="+", default=["checkpoint-5", "checkpoint-10"])
    parser.add_argument("--one", nargs=2, metavar=("CHECKPOINT", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        checkpoint = None if args.one[0] == "base" else Path(args.one[0])
        judge_one(args.recipe, checkpoint, Path(args.one[1]), args.samples, args.batch)
        return
    jobs = [("base", args.sweep / "base.parquet")]
    for run in sorted(path.parent for path in args.sweep.glob("*/model")):
        jobs += [(str(run / name), run / "eval" / f"{name}.parquet") for name in args.checkpoints]

    def evaluate(job: tuple[str, Path]) -> None:
        checkpoint, out = job
        if not out.exists():
            command = [sys.executable, __file__, str(args.recipe), str(args.sweep), "--samples", str(args.samples)]
            command += ["--batch", str(args.batch), "--one", checkpoint, str(out)]
            done = subprocess.run(command, capture_output=True, text=True)
            print(f"{checkpoint}: {'done' if done.returncode == 0 else done.stderr[-2000:]}", flush=True)

    with ThreadPoolExecutor(args.parallel) as pool:
        list(pool.map(evaluate, jobs))
    table(args.sweep, args.checkpoints)


def summary(path: Path) -> dict[str, float]:
    """Return the share of satisfied criteria by category, and of the worst criterion of a reply's rubric."""
    verdicts = pd.read_parquet(path)
    values = {"all": verdicts.reward.mean()}
    values |= {label: verdicts[[label in labels for labels in verdicts.labels]].reward.mean() for label in LABELS}
    by_prompt = verdicts.groupby(["group", "criterion"]).reward.mean().groupby("group")
    return values | {"worst criterion of a prompt": by_prompt.min().mean()}


def table(sweep: Path, checkpoints: list[str]) -> None:
    """Print best (by the mean over all criteria) and last checkpoint of each method."""
    rows = [{"method": "untrained", "which": "", **summary(sweep / "base.parquet")}]
    spread: dict[str, list[str]] = {}
    for method in METHODS:
        best, last = [], []
        for run in sorted(sweep.glob(f"{method}-[0-9]*")):
            found = [
                summary(run / "eval" / f"{name}.parquet")
                for name in checkpoints
                if (run / "eval" / f"{name}.parquet").exists()
            ]
            if len(found) == len(checkpoints):
                best.append(max(found, key=lambda values: values["all"]))
                last.append(found[-1])
        if last:
            spread[method] = [f"{b['all']:.3f} / {e['all']:.3f}" for b, e in zip(best, last, strict=True)]
            rows += [
                {"method": method, "which": name, **pd.DataFrame(values).mean().to_dict()}
                for name, values in (("best", best), ("last", last))
            ]
    frame = pd.DataFrame(rows)
    print("| " + " | ".join(frame.columns) + " |")
    print("|---|---|" + "--:|" * (len(frame.columns) - 2))
    for row in frame.itertuples(index=False):
        print("| " + " | ".join(value if isinstance(value, str) else f"{value:.3f}" for value in row) + " |")
    print("\nAll criteria, best / last, each seed:")
    for method, values in spread.items():
        print(f"- {method}: {', '.join(values)}")


if __name__ == "__main__":
    main()
