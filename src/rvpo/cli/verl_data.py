"""``rvpo verl-data``: write a recipe's data as the parquet files that verl reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verl_data(
    recipe: Annotated[Path, typer.Argument(help="Recipe, or any YAML file with a section `data` (and `eval_data`).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Values to change, as key=value: data.path=train.parquet data.limit=512")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for train.parquet and eval.parquet; its name becomes the rows' data_source.")
    ] = Path("data/verl"),
) -> None:
    """Write a recipe's data as the parquet files that verl trains on.

    `data` takes every option of rvpo.data.load_prompts; relative paths start at the current folder. For a run on verl,
    pass the files as data.train_files and data.val_files. Reward functions find prompt and columns in each row's
    extra_info.
    """
    from rvpo.recipe import load_data_sections

    sections = load_data_sections(recipe, overrides or [])
    from rvpo.data import load_prompts
    from rvpo.engines.verl.data import write_parquet

    for split, section in sections.items():
        typer.echo(f"reading {section.path}", err=True)
        options = section.model_dump()
        dataset = load_prompts(options.pop("path"), **options)
        path = out / f"{split}.parquet"
        write_parquet(dataset, path, data_source=out.resolve().name, split=split)
        typer.echo(f"{len(dataset)} prompts: {path}")
