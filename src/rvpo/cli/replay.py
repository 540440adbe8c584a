"""``rvpo replay``: show what other methods would have done with the rewards of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from rvpo.cli.completion import method_names
from rvpo.cli.logs import (
    Advantage,
    Group,
    GroupSize,
    JsonFile,
    Logs,
    MarkdownFile,
    MethodOption,
    Ranges,
    RewardsOption,
    Step,
    Steps,
    Weights,
    columns_of,
    opened,
    parsed,
    print_text,
    write_json,
    write_text,
)
from rvpo.extras import needs_extra


def replay_command(
    path: Logs,
    methods: Annotated[
        str | None,
        typer.Option(
            autocompletion=method_names,
            help="Methods to try, separated by blanks: NAME or NAME:option=value,option=value, such as "
            "'gdpo rvpo:k=2 rvpo:k=linear(0.5,2) lift:kappa=4 my_rules.py:cvar'. Default: a set of common methods.",
        ),
    ] = None,
    rewards: RewardsOption = None,
    group: Group = None,
    group_size: GroupSize = None,
    advantage: Advantage = None,
    step: Step = None,
    weights: Weights = None,
    ranges: Ranges = None,
    steps: Steps = None,
    method: MethodOption = None,
    json_file: JsonFile = None,
    markdown_file: MarkdownFile = None,
) -> None:
    """Aggregate the logged rewards of a run again with other methods, and show what they would have done differently.

    The run's own method is replayed, too. Its advantages are compared with the logged ones.
    """
    with needs_extra("report", "reports", "scipy"):
        from rvpo.core import AdvantageConfig
        from rvpo.core.methods.registry import read_texts
        from rvpo.diagnose import replay as replaying
        from rvpo.diagnose.text import replay_text
        from rvpo.text.progress import Progress
        from rvpo.text.terminal import current

        tried = [AdvantageConfig(built) for built in read_texts(methods or " ".join(replaying.DEFAULT))]
        run = opened(path, columns_of(rewards, group, group_size, advantage, step), steps, weights, ranges)
        with Progress("steps", len(run.steps)) as bar:
            found = replaying.replay(run, tried, assumed=parsed(method), progress=bar.advance)
    terminal = current()
    print_text(replay_text(found, terminal=terminal), terminal)
    write_json(json_file, found.to_json())
    write_text(markdown_file, replay_text(found, as_markdown=True))
