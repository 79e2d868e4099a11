"""The demo's page: what was learnt, what it cost, and what the model saw."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hedgerow.build import budget_of, training_examples
from hedgerow.content import Points, Tracks
from hedgerow.encode import Encoder
from hedgerow.evaluate.runner import Reply
from hedgerow.experiments.demo.scores import Scores
from hedgerow.experiments.speed import Comparison
from hedgerow.grounding.codec import parse
from hedgerow.packing.plan import plan_epoch
from hedgerow.recipe import Recipe
from hedgerow.report.page import Chart, Picture, Pictures, Section, Table, Text, write_page
from hedgerow.report.trees import media_pictures, row_block, tree_block
from hedgerow.report.view import dropped_section
from hedgerow.sequence import Row

_HEAD = ("", "trained", "low", "high", "best constant", "untrained", "n")


def write_report(
    path: Path,
    *,
    recipes: Sequence[Recipe],
    encoder: Encoder,
    replies: Sequence[Reply],
    speed: Comparison,
    tasks: Mapping[str, Scores],
    kinds: Mapping[str, Scores],
) -> Path:
    """Write the demo's report and return its path."""
    sections = [
        Section(
            "What it learnt",
            [_about(), _table("By task, held-out clips", tasks), _table("Pointing F1 by object", kinds)],
        ),
        Section("Seen and said", _answers(replies, encoder)),
        Section("Training", [chart for recipe in recipes for chart in _curves(recipe)]),
        Section("Padded against packed", [Text(_gain(speed)), _sides(speed)]),
        *_packed(recipes[-1], encoder),
    ]
    return write_page(
        path, "hedgerow demo", sections, subtitle="A small Molmo2 trained on packed message trees"
    )


def _about() -> Text:
    return Text(
        "Held-out clips come from other seeds and other ways of playing. A point hits when it lies inside "
        "the object's true box, grown to at least 4 % of the frame's height, at the time asked for; F1 is "
        "averaged over questions. The best constant reply is chosen on training clips for each game and "
        "question, and is given the time that was asked for. Intervals are 95 %, bootstrapped over clips."
    )


def _table(caption: str, scores: Mapping[str, Scores]) -> Table:
    rows = [
        (
            name,
            s.trained.value,
            s.trained.low,
            s.trained.high,
            s.constant.value,
            s.untrained.value,
            s.trained.n,
        )
        for name, s in scores.items()
    ]
    return Table(_HEAD, rows, caption)


def _gain(speed: Comparison) -> str:
    return (
        f"The same {speed.annotations} annotations of 8 training clips in one optimiser step: packed "
        f"trees are "
        f"{speed.speedup:.2f} times faster than padded rows that encode the clip again for each annotation. "
        f"Tokens and crops allow {speed.bound:.2f}."
    )


def _sides(speed: Comparison) -> Table:
    rows = [
        (name, side.rows, side.tokens, side.crops, side.seconds, side.peak_mb)
        for name, side in (("padded", speed.padded), ("packed", speed.packed))
    ]
    return Table(("", "rows", "tokens", "crops", "seconds", "peak MB"), rows)


def _answers(replies: Sequence[Reply], encoder: Encoder) -> list[Any]:
    """A few questions of each data set: true rings and predicted crosses, then question and reply."""
    blocks: list[Any] = [
        Text(
            "Rings and boxes are true, crosses are the model's. The first questions of each game, not chosen."
        )
    ]
    for task, most in (("pointing", 3), ("tracking", 1)):
        taken: dict[str, int] = {}
        for reply in replies:
            source = reply.question.tree.source
            if reply.question.task != task or taken.get(source, 0) >= most:
                continue
            taken[source] = taken.get(source, 0) + 1
            blocks.append(Pictures(_frames(reply, encoder)))
            blocks.append(
                Text(f"{source}: {reply.question.text} Reply: {reply.text} (score {reply.score:.2f})")
            )
    return blocks


def _frames(reply: Reply, encoder: Encoder) -> list[Picture]:
    question = reply.question
    prompt = encoder.prompts(question.tree, [question.node])[0]
    true = [part for part in question.answer if isinstance(part, Points | Tracks)]
    return media_pictures(prompt, encoder.layouts(question.tree), true, parse(reply.text).parts)


def _curves(recipe: Recipe) -> list[Chart]:
    metrics = recipe.out / "metrics.jsonl"
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    tasks = sorted({task for step in steps for task in step["tasks"]})
    loss = {
        task: [(step["step"], step["tasks"][task]["nll"]) for step in steps if task in step["tasks"]]
        for task in tasks
    }
    fill = {name: [(step["step"], step["fill"][name]) for step in steps] for name in steps[-1]["fill"]}
    name = recipe.out.name
    return [
        Chart(f"{name}: loss by task", loss, "step", "nats a token"),
        Chart(f"{name}: share of the budget used", fill, "step", "share"),
    ]


def _packed(recipe: Recipe, encoder: Encoder) -> list[Section]:
    examples, budget = training_examples(recipe, encoder), budget_of(recipe)
    plan = plan_epoch(examples.costs(0), budget, seed=recipe.seed, epoch=0, pool=recipe.packing.pool)
    rows = [Row.join([examples.encode(0, number) for number in row], budget) for row in plan.rows[:6]]
    trees = [tree_block(examples.tree(0, number), encoder) for number in plan.rows[0][:8]]
    sections = [
        Section(
            "Packed rows", [Text(repr(plan)), *(row_block(row, number) for number, row in enumerate(rows))]
        ),
        Section("Trees of the first row", trees),
    ]
    return [*sections, dropped_section(examples.dropped)] if examples.dropped else sections
