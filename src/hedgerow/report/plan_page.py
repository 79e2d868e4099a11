"""A data plan as sections: for the terminal and for the page."""

from collections.abc import Iterator
from collections.abc import Sequence as Listing
from pathlib import Path

from hedgerow.data.shares import Share
from hedgerow.packing.plan import Plan
from hedgerow.report.lengths import Lengths, Spread
from hedgerow.report.page import Chart, Section, Table, Text, show, write_page
from hedgerow.report.plan import DataPlan, Fit
from hedgerow.report.trials import Saving, Trial


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
        found.append(Section("Balance", [_balance(plan)]))
    found.append(Section("Mixture", [_mixture(plan)]))
    if plan.dropped:
        rows = [(item.where, item.reason) for item in plan.dropped]
        found.append(Section("Dropped", [Table(("where", "why"), rows)]))
    return found


def _advice(plan: DataPlan) -> Iterator[str]:
    best = plan.fits[-1]
    yield (
        f"For {plan.examples:,} examples: a budget of {best.budget['tokens']:,} tokens and "
        f"{best.budget['crops']:,} crops, and a pool of {plan.pool}. An epoch is about {best.rows:,} rows of "
        f"{best.plan.examples / len(best.plan.rows):.1f} examples."
    )
    if best.left_out:
        yield f"This leaves out {best.left_out:,} examples that are far longer than all others; see Budgets."
    faster = ", ".join(f"{show(one.flops)} over {one.against}" for one in plan.savings)
    yield f"Expected speed-up, by the FLOPs of {plan.model}: {faster}."


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


def _budgets(plan: DataPlan) -> Iterator[Table]:
    head = ("budget", "tokens", "crops", "too large", "rows an epoch", *_PLANNED)
    yield Table(head, [_fit(fit) for fit in plan.fits])
    for fit in plan.fits:
        if fit.named:
            caption = f"Larger than a row of the {fit.name} budget: {fit.left_out:,}"
            rows = [(item.where, item.reason) for item in fit.named]
            yield Table(("where", "why"), rows, caption=caption)


_PLANNED = ("tokens full, %", "crops full, %", "gap, rows", "gap, %")


def _fit(fit: Fit) -> tuple[object, ...]:
    budget = fit.budget
    return (fit.name, budget["tokens"], budget["crops"], fit.left_out, fit.rows, *_planned(fit.plan))


def _trials(plan: DataPlan) -> Table:
    caption = f"{plan.tried:,} examples, {plan.basis} budget; gap: above the volume of the scarcest budget"
    rows = [(_name(trial, plan), len(trial.plan.rows), *_planned(trial.plan)) for trial in plan.trials]
    return Table(("way", "rows", *_PLANNED), rows, caption=caption)


def _name(trial: Trial, plan: DataPlan) -> str:
    if trial is plan.trials[-1]:
        return "all at once"
    mark = ", recommended" if trial.way == "pool" and trial.size == plan.pool else ""
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


def _balance(plan: DataPlan) -> Table:
    found = plan.waiting
    assert found is not None
    caption = (
        f"FLOPs of the slowest row of a step over their mean, {found.rows} rows a step, {found.steps:,} steps"
    )
    rows = [("as packed", found.packed), ("arranged by FLOPs (balance: true)", found.arranged)]
    return Table(("order of rows", "slowest over mean"), rows, caption=caption)


def _mixture(plan: DataPlan) -> Table:
    head = ("data set", "size", "passes", "examples, %", "samples, %", "tokens, %", "weight, %")
    return Table(head, list(_shares(plan)), caption=f"An epoch draws {plan.mixture.draws:,} examples")


def _shares(plan: DataPlan) -> Iterator[tuple[object, ...]]:
    mixture = plan.mixture
    for group in mixture.groups:
        yield _share(group.name, group)
        yield from (_share(f"- {one.name}", one) for one in mixture.sets if one.group == group.name)
    if not mixture.groups:
        yield from (_share(one.name, one) for one in mixture.sets)


def _share(name: str, one: Share) -> tuple[object, ...]:
    shares: Listing[float] = (one.examples, one.samples, one.tokens, one.weight)
    return (name, one.size, one.passes, *(100 * share for share in shares))
