"""A data plan as sections: for the terminal and for the page."""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from pathlib import Path

from hedgerow.data.answers import points_note
from hedgerow.data.shares import MixtureReport, Share, counted
from hedgerow.errors import RecipeError
from hedgerow.packing.plan import Plan
from hedgerow.report.budgets import Fit
from hedgerow.report.lengths import Lengths, Spread
from hedgerow.report.page import Chart, Section, Table, Text, show, write_page
from hedgerow.report.plan import DataPlan
from hedgerow.report.trials import Saving, Trial, Waiting

_TOLD = 3  # examples larger than a row that the recommendation names
_TOGETHER = 8  # steps that `packing.balance` arranges together


def check_page(out: Path) -> Path:
    """Return the path of a page.

    Raises:
        RecipeError: its name is not that of a page.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f"{out}: a plan is written as HTML; give a name that ends in .html")
    return out


def write_plan(plan: DataPlan, out: Path) -> Path:
    """Write a plan as one page and return its path."""
    return write_page(out, "Data plan", sections(plan), subtitle=", ".join(plan.files))


def sections(plan: DataPlan) -> list[Section]:
    """Return what a plan says, in the order in which it is read."""
    found = [
        Section("Recommendation", [Text(line) for line in _advice(plan)]),
        Section("Lengths", list(_lengths(plan))),
        Section("Budgets", list(_budgets(plan))),
        Section("Pool and window", [_trials(plan)]),
        Section("What packing and trees save", [_savings(plan)]),
    ]
    if plan.waiting is not None:
        found.append(Section("Balance", list(_balance(plan.waiting))))
    found.append(Section("Mixture", list(_mixture(plan))))
    if plan.dropped:
        rows = [(item.where, item.reason) for item in plan.dropped]
        caption = "Left out, as by data.on_bad: skip; with raise, the default, training stops at the first"
        found.append(Section("Dropped", [Table(("where", "why"), rows, caption=caption)]))
    return found


def _advice(plan: DataPlan) -> Iterator[str]:
    if plan.note:
        yield plan.note
    best, own = plan.fits[-1], plan.fits[0]
    budget = f"a budget of {_room(best)}, and {_from(plan.pool, plan.window)}"
    keep = "keep the recipe's own, nothing tried is better: " if plan.kept else ""
    yield f"For {counted(plan.examples, 'example')}: {keep}{budget}; {_epoch(best)}."
    yield from _larger(plan)
    yield f"As YAML: {_yaml(plan)}"
    if own.name != best.name and not plan.kept:
        yield f"The recipe's own budget of {_room(own)}: {_epoch(own)}; {_compared(own, best)}."
    faster = ", ".join(f"{show(one.flops)} over {one.against}" for one in plan.savings)
    yield f"Expected speed-up, by the FLOPs of {plan.model}: {faster}."
    if plan.astray:
        yield f"Warning: {points_note(plan.astray)}."


def _room(fit: Fit) -> str:
    return f"{counted(fit.budget['tokens'], 'token')} and {counted(fit.budget['crops'], 'crop')}"


def _from(pool: int, window: int | None) -> str:
    return f"a pool of {pool}" if window is None else f"a window of {window:,}"


def _epoch(fit: Fit) -> str:
    if not fit.plan.rows:
        return "no example that a run needs fits into a row"
    each = f"{fit.plan.examples / len(fit.plan.rows):.1f} examples"
    full = f"tokens {100 * fit.plan.fill['tokens']:.1f} % full"
    return f"an epoch is about {counted(fit.rows, 'row')} of {each}, {full}"


def _compared(own: Fit, best: Fit) -> str:
    """Say why another budget than the recipe's is recommended."""
    if own.over > best.over:
        return f"{counted(own.over, 'example')} larger than a row, here {best.over:,}"
    return "the recommended one fills rows as well or better"


def _larger(plan: DataPlan) -> Iterator[str]:
    """Name what the recommended budget does not hold, and say what to do about it."""
    best, whole = plan.fits[-1], plan.whole
    if not best.over:
        return
    named = "; ".join(f"{item.where} ({item.reason})" for item in best.named[:_TOLD])
    more = f" and {best.over - _TOLD:,} more, see Budgets" if best.over > _TOLD else ""
    hold = f"a row that holds all takes {whole['tokens']:,} tokens and {whole['crops']:,} crops"
    yield f"Larger than such a row: {named}{more}; {_rule(plan, best)}; {hold}."


def _rule(plan: DataPlan, best: Fit) -> str:
    if plan.oversize == "raise":
        return "set packing.oversize to shorten, which leaves out branches that do not fit, or to drop"
    if plan.oversize == "drop" or best.mixture is None:
        return "left out, by packing.oversize: drop"
    lost = f", {counted(best.left_out, 'tree')} left out" if best.left_out else ""
    return f"by packing.oversize: shorten, {best.mixture.cuts or 'no tree shortened'}{lost}"


def _yaml(plan: DataPlan) -> str:
    """The recommendation as one line of YAML; with it a run does not stop at what is larger than a row."""
    best = plan.fits[-1]
    order = f"pool: {plan.pool}" if plan.window is None else f"window: {plan.window}"
    rule = "shorten" if plan.oversize == "raise" else plan.oversize
    oversize = f", oversize: {rule}" if best.over else ""
    room = f"{{tokens: {best.budget['tokens']}, crops: {best.budget['crops']}}}"
    return f"packing: {{budget: {room}, {order}{oversize}}}"


def _lengths(plan: DataPlan) -> Iterator[Table | Chart]:
    note = (
        ""
        if plan.looked == plan.examples
        else f"{plan.looked:,} of {plan.examples:,} examples, evenly spread"
    )
    yield Table(_HEAD, [_length(one) for one in plan.kinds], caption=note)
    yield Table(("task", *_HEAD[1:]), [_length(one) for one in plan.tasks])
    curves = {one.name: one.tokens.deciles for one in plan.kinds if one.tokens is not None}
    series = {name: [(10.0 * n, y) for n, y in enumerate(curve)] for name, curve in curves.items()}
    yield Chart("Tokens of an example", series, x="share of examples that are shorter, %", y="tokens")


_AMOUNTS = ("tokens", "crops", "answer tokens")
_HEAD = ("kind", "examples", *(f"{name}: median / p95 / most" for name in _AMOUNTS))


def _length(one: Lengths) -> tuple[object, ...]:
    return (one.name, one.examples, _spread(one.tokens), _spread(one.crops), _spread(one.answers))


def _spread(spread: Spread | None) -> str | None:
    return None if spread is None else f"{spread.median:,.0f} / {spread.p95:,.0f} / {spread.most:,}"


def _budgets(plan: DataPlan) -> Iterator[Table | Text]:
    head = ("budget", "tokens", "crops", "too large", "left out", "rows an epoch", *_PLANNED)
    own = dataclasses.replace(plan.fits[0], name="recipe, recommended")
    fits = (own,) if plan.kept else plan.fits
    yield Table(head, [_fit(fit) for fit in fits])
    for fit in fits:
        if fit.mixture is not None and fit.mixture.cuts:
            yield Text(f"Under the {fit.name} budget: {fit.mixture.cuts}.")
        if fit.named:
            stops = "; training stops at the first" if plan.oversize == "raise" else ""
            caption = f"Larger than a row of the {fit.name} budget: {fit.over:,}{stops}"
            rows = [(item.where, item.reason) for item in fit.named]
            yield Table(("where", "why"), rows, caption=caption)


_PLANNED = ("tokens full, %", "crops full, %", "gap, rows", "gap, %")


def _fit(fit: Fit) -> tuple[object, ...]:
    budget = fit.budget
    held = (fit.over, fit.left_out, fit.rows)
    return (fit.name, budget["tokens"], budget["crops"], *held, *_planned(fit.plan))


def _trials(plan: DataPlan) -> Table:
    best = plan.fits[-1]
    caption = (
        f"{counted(plan.tried, 'example')}, recommended budget of {_room(best)}; gap: rows above the volume "
        "of the scarcest budget"
    )
    rows = [(_name(trial, plan), len(trial.plan.rows), *_planned(trial.plan)) for trial in plan.trials]
    return Table(("way", "rows", *_PLANNED), rows, caption=caption)


def _name(trial: Trial, plan: DataPlan) -> str:
    if trial is plan.trials[-1]:
        return "all at once"
    size = plan.pool if plan.window is None else plan.window
    way = "pool" if plan.window is None else "window"
    mark = ", recommended" if (trial.way, trial.size) == (way, size) else ""
    return f"{trial.way} of {trial.size:,}{mark}"


def _planned(plan: Plan) -> tuple[float | None, ...]:
    if not plan.rows:
        return (None,) * len(_PLANNED)
    crops = 100 * plan.fill["crops"] if plan.budget.get("crops", 0) else None
    return 100 * plan.fill["tokens"], crops, plan.gap, 100 * plan.gap / plan.bound


def _savings(plan: DataPlan) -> Table:
    head = ("instead of rows of trees", "tokens, times", "crops, times", "FLOPs, times")
    caption = f"FLOPs of {plan.model}, forward and backward"
    return Table(head, [_saving(one) for one in plan.savings], caption=caption)


def _saving(one: Saving) -> tuple[object, ...]:
    return one.against, one.tokens, one.crops, one.flops


def _balance(waiting: Waiting) -> Iterator[Table | Text]:
    steps, rows = counted(waiting.steps, "step"), counted(waiting.rows, "row")
    caption = f"FLOPs of the slowest row of a step over their mean, {rows} a step, {steps}"
    orders = [("as packed", waiting.packed), ("arranged by FLOPs (balance: true)", waiting.arranged)]
    yield Table(("order of rows", "slowest over mean"), orders, caption=caption)
    if waiting.steps < _TOGETHER:
        yield Text(
            f"{steps} of {rows}: too few to tell. Steps are arranged {_TOGETHER} at a time, and each keeps "
            "its share of every task; with fewer, balance may come out worse by chance."
        )
    elif waiting.arranged >= waiting.packed:
        yield Text(
            "Nothing is gained here: each step keeps its share of every task, before FLOPs are evened out."
        )


def _mixture(plan: DataPlan) -> Iterator[Table | Text]:
    fit = next(fit for fit in plan.fits if fit.mixture is not None)  # the recommended one has one
    mixture = fit.mixture
    assert mixture is not None
    head = ("data set", "size", "passes", "examples, %", "samples, %", "tokens, %", "weight, %")
    draws = (
        f"An epoch draws {counted(mixture.draws, 'example')}; shares as trained under the {fit.name} budget"
    )
    yield Table(head, list(_shares(mixture)), caption=draws)
    if mixture.cuts:
        yield Text(f"{mixture.cuts}.")


def _shares(mixture: MixtureReport) -> Iterator[tuple[object, ...]]:
    for group in mixture.groups:
        yield _share(group.name, group)
        yield from (_share(f"- {one.name}", one) for one in mixture.sets if one.group == group.name)
    if not mixture.groups:
        yield from (_share(one.name, one) for one in mixture.sets)


def _share(name: str, one: Share) -> tuple[object, ...]:
    shares: Listing[float] = (one.examples, one.samples, one.tokens, one.weight)
    return (name, one.size, one.passes, *(100 * share for share in shares))
