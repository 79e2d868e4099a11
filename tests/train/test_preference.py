import copy
import dataclasses
import math

import pytest
import torch

from hedgerow.build import build_encoder, training_examples
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.recipe import Loss, load_recipe
from hedgerow.sequence import Budget, Row
from hedgerow.testing import TINY_MODEL, tiny_encoder, tiny_recipe, write_jsonl, write_png
from hedgerow.text import load_tokenizer
from hedgerow.train.loop import train
from hedgerow.train.loss import Sums, by_task
from hedgerow.train.objective import Referenced, objective_of, reference_logps
from hedgerow.train.preference import Transport, find_pairs, preference_loss
from hedgerow.tree import MessageTree
from hedgerow.weights.transport import transport_weights
from hedgerow.weights.weighting import Weighting

ANSWERS = [
    "A red ball and a blue box.",
    "A ball.",
    "I see nothing at all here, sorry.",
    "Two things: a ball, a box.",
]
RANKS = [0, 2, 2, 1]
PAIRS = [(0, 1), (0, 2), (0, 3), (3, 1), (3, 2)]  # better, worse


@pytest.fixture(scope="module")
def model():
    return build(ModelSpec(**TINY_MODEL), tokenizer=load_tokenizer("tiny"), seed=3).eval()


@pytest.fixture(scope="module")
def frozen(model):
    """Another model of the same sizes: the reference."""
    return build(ModelSpec(**TINY_MODEL), tokenizer=load_tokenizer("tiny"), seed=4).eval()


@pytest.fixture(scope="module")
def prompt(tmp_path_factory):
    image = write_png(tmp_path_factory.mktemp("preference") / "image.png")
    return [
        {
            "role": "user",
            "content": [{"type": "image", "path": str(image)}, {"type": "text", "text": "What?"}],
        }
    ]


@pytest.fixture(scope="module")
def tree(prompt):
    branches = [
        {"rank": rank, "messages": [{"role": "assistant", "content": answer}]}
        for rank, answer in zip(RANKS, ANSWERS, strict=True)
    ]
    return MessageTree.from_dict({"id": "ranked", "messages": prompt, "branches": branches})


def as_row(*trees, **options):
    sequences = [tiny_encoder(**options)(tree) for tree in trees]
    return Row.join(sequences, Budget(tokens=4000, crops=50)).to("cpu")


def referenced(row, frozen):
    return dataclasses.replace(row, reference=reference_logps(frozen, row))


def two_rows(model, frozen, prompt, *, beta, transport, smoothing=0.0):
    """The same loss from conversations of their own: image and prompt again for every candidate."""
    logps, references, states = [], [], []
    for number, answer in enumerate(ANSWERS):
        messages = [*prompt, {"role": "assistant", "content": answer}]
        row = as_row(MessageTree.from_dict({"id": f"alone-{number}", "messages": messages}))
        hidden = model(row)[row.source]
        logps.append(model.head(hidden).log_softmax(-1).gather(-1, row.target[:, None])[:, 0])
        references.append(reference_logps(frozen, row))
        states.append(hidden.detach())
    total = 0.0
    for better, worse in PAIRS:
        weights = [torch.ones(len(logps[better])), torch.ones(len(logps[worse]))]
        if transport:
            mass = [weight[None].double() for weight in weights]
            found = transport_weights(
                states[better][None],
                states[worse][None],
                *mass,
                entropy=transport.entropy,
                marginal=transport.marginal,
            )
            weights = [weight[0].float() for weight in found]
        score = [
            (weight * (logps[one] - references[one])).sum()
            for weight, one in zip(weights, (better, worse), strict=True)
        ]
        p = torch.sigmoid(beta * (score[0] - score[1]))
        total = total - (1 - smoothing) * p.log() - smoothing * (1 - p).log()
    return total


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("transport", [None, Transport(), Transport(entropy=0.1, marginal=0.2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_tree_of_candidates_equals_a_row_for_each(model, frozen, prompt, tree, transport, smoothing):
    """Law 2 for preferences: loss and gradients, image and prompt run once against four times."""
    options = {"beta": 0.3, "smoothing": smoothing, "transport": transport}
    expected = two_rows(model, frozen, prompt, **options)
    wanted = gradients(model, expected)
    row = referenced(as_row(tree), frozen)
    found = preference_loss(model(row), row, model.head, chunk=9, **options)
    assert float(found.numerator.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    size = torch.stack([value.norm() for value in wanted.values()]).norm()
    own = gradients(model, found.numerator)
    assert own.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (own[name] - value).norm() <= 1e-5 * size, name


def test_dpo_and_otpo_are_not_the_same(model, frozen, tree):
    row = referenced(as_row(tree), frozen)
    one, other = (
        float(preference_loss(model(row), row, model.head, beta=0.3, transport=t).numerator.detach())
        for t in (None, Transport())
    )
    assert abs(one - other) > 1e-3


def test_before_training_the_loss_of_a_pair_is_log_2(model, tree):
    row = referenced(as_row(tree), model)
    found = preference_loss(model(row), row, model.head, beta=0.3)
    sums = Sums.total(by_task(found, row.samples).values())
    assert sums.divisor("weights") == sums.effective == len(PAIRS)
    assert float(found.numerator.detach()) == pytest.approx(len(PAIRS) * math.log(2), rel=1e-5)
    assert sums.weighted / sums.weight == pytest.approx(math.log(2), rel=1e-5)
    assert sums.nll / sums.targets == pytest.approx(-float(row.reference.mean()), rel=1e-5)
    assert (sums.pairs, sums.margin) == (len(PAIRS), pytest.approx(0.0, abs=1e-4))


def test_accuracy_and_margin_are_those_of_the_pairs(model, frozen, tree, prompt):
    row = referenced(as_row(tree), frozen)
    found = preference_loss(model(row), row, model.head, beta=0.3)
    sums = Sums.total(by_task(found, row.samples).values())
    gain = reference_logps(model, row) - row.reference
    own = [float(gain[row.sample == number].sum()) for number in range(len(ANSWERS))]
    margins = [0.3 * (own[better] - own[worse]) for better, worse in PAIRS]
    assert sums.margin == pytest.approx(sum(margins), rel=1e-4)
    assert sums.right == sum(margin > 0 for margin in margins)
    assert 0 < sums.right < len(PAIRS)


def test_pairs_are_answers_of_one_question_in_one_tree(tree):
    """Trees of the same shape have the same node numbers, and a tree may stand in a row twice."""
    other = dataclasses.replace(tree, id="other")
    row = as_row(tree, other, tree)
    pairs = find_pairs(row)
    found = list(zip(pairs.better.sample.tolist(), pairs.worse.sample.tolist(), strict=True))
    expected = {(4 * start + i, 4 * start + j) for start in range(3) for i, j in PAIRS}
    assert len(found) == len(expected)
    assert set(found) == expected
    for side in (pairs.better, pairs.worse):
        for sample, target, present in zip(side.sample, side.target, side.present, strict=True):
            assert target[present].tolist() == torch.nonzero(row.sample == sample)[:, 0].tolist()


def test_two_questions_in_a_tree_are_compared_apart(prompt):
    def question(text, *ranks):
        answers = [{"rank": r, "messages": [{"role": "assistant", "content": f"{text} {r}"}]} for r in ranks]
        return {"messages": [{"role": "user", "content": text}], "branches": answers}

    questions = [question("a", 0, 1), question("b", 1, 0, 1), question("c", 0)]
    row = as_row(MessageTree.from_dict(
        {"id": "two", "messages": prompt, "branches": questions}
    ))  # fmt: skip
    pairs = find_pairs(row)
    found = set(zip(pairs.better.sample.tolist(), pairs.worse.sample.tolist(), strict=True))
    assert found == {(0, 1), (3, 2), (3, 4)}  # sample 5 has nobody to compare with


def test_message_weights_scale_targets_and_task_weights_do_not(model, frozen, prompt):
    """Law 11 for preferences: 0.5 stays 0.5, a target of weight 0 is out, 4 / sqrt(n) stays outside."""

    ends = (" of red wood.", " or so, who knows?")

    def loss(part_weights, **options):
        branches = [
            {"rank": rank, "messages": [{"role": "assistant", "content": [
                {"type": "text", "text": "A ball"}, {"type": "text", "text": text, "weight": weight}]}]}
            for rank, (text, weight) in enumerate(zip(ends, part_weights, strict=True))
        ]  # fmt: skip
        row = as_row(
            MessageTree.from_dict({"id": "parts", "messages": prompt, "branches": branches}), **options
        )
        row = referenced(row, frozen)
        found = preference_loss(model(row), row, model.head, beta=0.3)
        margin = -math.log(math.expm1(float(found.numerator.detach())))
        logp = reference_logps(model, row) - row.reference
        weight = row.weight / torch.tensor([row.samples[n].weight for n in row.sample.tolist()])
        sign = 1 - 2 * row.sample
        assert margin == pytest.approx(0.3 * float((sign * weight * logp).sum()), rel=1e-4)
        return margin

    full, half, none = loss((1.0, 1.0)), loss((0.5, 0.5)), loss((0.0, 0.0))
    assert half == pytest.approx((full + none) / 2, rel=1e-4)
    assert full != pytest.approx(none, rel=0.05)
    assert loss((1.0, 1.0), weights=Weighting(preset="uniform")) == pytest.approx(full, rel=1e-5)


def test_reference_values_that_are_missing_are_refused(model, tree):
    row = as_row(tree)
    with pytest.raises(
        DataError, match=r"^ranked: no reference log-probabilities, which a preference loss needs"
    ):
        preference_loss(model(row), row, model.head, beta=0.1)
    holes = torch.zeros(len(row.target))
    holes[3] = math.nan
    row = dataclasses.replace(row, reference=holes)
    with pytest.raises(
        DataError, match=r"^ranked: no reference .* data.references, or set loss.reference: model"
    ):
        preference_loss(model(row), row, model.head, beta=0.1)


def test_a_tree_without_a_better_and_a_worse_answer_is_refused(tree, prompt):
    plain = MessageTree.from_dict(
        {
            "id": "plain",
            "messages": prompt,
            "branches": [{"messages": [{"role": "assistant", "content": "Yes."}]}],
        }
    )
    with pytest.raises(DataError, match=r"^plain: no better and worse answer .*rank \(0 is best\)"):
        find_pairs(as_row(tree, plain))


def test_the_reference_model_is_a_frozen_copy_of_the_first_one(model, tree):
    """Molmo2 can be copied; the copy does not train, and later training does not reach it."""
    row, trained = as_row(tree), copy.deepcopy(model)
    objective = objective_of(Loss(preference={"name": "otpo"}, reference="model"), trained)
    assert isinstance(objective, Referenced)
    before = objective.logps(row)
    torch.testing.assert_close(before, reference_logps(model, row))
    loss = objective(trained, row).numerator
    loss.backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter -= parameter.grad if parameter.grad is not None else 0.0
    assert torch.equal(objective.logps(row), before)
    assert not torch.equal(reference_logps(trained, row), before)


def test_targets_spread_over_processes_cannot_be_compared(model):
    for loss in (Loss(preference={"name": "dpo"}), Loss(dynamic={"name": "top", "share": 0.5})):
        with pytest.raises(RecipeError, match="context parallelism spreads over processes; set context: 1"):
            objective_of(loss, model, whole_rows=False)
    objective_of(Loss(dynamic={"name": "focal"}), model, whole_rows=False)


@pytest.mark.parametrize("kind", ["dpo", "otpo"])
def test_a_run_learns_to_prefer_and_a_resumed_one_keeps_its_reference(toy, tmp_path, model, tree, kind):
    """Law 7 for preferences: the reference is the model before training, not that of the checkpoint."""
    rows = [as_row(tree), as_row(dataclasses.replace(tree, id="again"))]
    rate = {"lr": 0.003, "warmup": 0}

    def run(folder, *callbacks):
        folder.mkdir(exist_ok=True)
        recipe = toy.recipe(
            folder, steps=4, schedule={"floor": 1.0}, save_every=1,
            optimizer={"vision": rate, "connector": rate, "language": rate},
            loss={"preference": {"name": kind, "beta": 0.3}, "reference": "model"},
        )  # fmt: skip
        watch = toy.Watch()
        train(recipe, copy.deepcopy(model), toy.Given(rows), callbacks=[watch, *callbacks])
        return [step.loss for step in watch.steps]

    whole = run(tmp_path / "whole")
    assert whole[0] == pytest.approx(math.log(2), rel=1e-4)
    assert whole[-1] < 0.8 * whole[0]
    with pytest.raises(toy.Stop):
        run(tmp_path / "cut", toy.StopAt(3))
    assert run(tmp_path / "cut") == whole[2:]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"preference": {"name": "dpo"}, "normalize": "tokens"}, "mean over pairs"),
        ({"preference": {"name": "dpo"}, "z_loss": 0.1}, "mean over pairs"),
        ({"preference": {"name": "dpo"}, "dynamic": {"name": "focal"}}, "mean over pairs"),
        ({"preference": {"name": "dpo", "marginal": 1.0}}, "marginal"),
        ({"preference": {"name": "dpo", "smoothing": 0.5}}, "smoothing"),
        ({"preference": {"name": "dpo", "beta": 0}}, "beta"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Loss.model_validate(wrong)


def candidate(text, rank=None, weight=None, asked=None):
    question = [] if asked is None else [{"role": "user", "content": asked}]
    given = {"rank": rank, "weight": weight, "messages": [*question, {"role": "assistant", "content": text}]}
    return {key: value for key, value in given.items() if value is not None}


def judged(prompt, *branches, name="judged"):
    return MessageTree.from_dict({"id": name, "source": name, "messages": prompt, "branches": list(branches)})


def test_an_answer_of_weight_0_is_in_no_pair(prompt):
    """Whether its branch or its message says so; any other weight of a branch changes nothing."""
    silent = candidate("c", 2)
    silent["messages"][0]["weight"] = 0
    tree = judged(prompt, candidate("a", 0, 3.0), candidate("b", 1, 0.5), candidate("d", 3, 0), silent)
    for encode in (tiny_encoder(), tiny_encoder().for_preferences()):
        pairs = find_pairs(Row.join([encode(tree)], Budget(tokens=4000, crops=50)).to("cpu"))
        assert (pairs.better.sample.tolist(), pairs.worse.sample.tolist()) == ([0], [1])


@pytest.mark.parametrize(
    ("branches", "said"),
    [
        ([candidate("a"), candidate("b")], r"^judged: no better and worse answer .*rank \(0 is best\)"),
        ([candidate("a", 1), candidate("b", 1)], "^judged: no better and worse answer"),
        ([candidate("a", 0), candidate("b", 1, 0)], "^judged: no better and worse answer .*weights above 0"),
        (
            [candidate("a", 0, asked="Who?"), candidate("b", 1, asked="Where?")],
            r"^judged, branch 1: its rank compares it with branch 0, which answers another question",
        ),
    ],
    ids=["no rank", "one rank", "weight 0", "two questions"],
)
def test_a_tree_that_cannot_be_compared_is_refused_before_it_is_trained(prompt, branches, said):
    tree, encode = judged(prompt, *branches), tiny_encoder()
    for use in (encode.for_preferences(), encode.for_preferences().survey):
        with pytest.raises(DataError, match=said):
            use(tree)
    assert encode.survey(tree).cost == encode(tree).cost


def test_the_same_question_in_each_branch_is_one_question(prompt):
    tree = judged(prompt, candidate("a", 0, asked="Who?"), candidate("b", 1, asked="Who?"))
    assert [sample.pair for sample in tiny_encoder().for_preferences()(tree).samples] == [0, 0]


def test_answers_without_a_rank_beside_ranked_ones_are_named_once(prompt, caplog):
    encode = tiny_encoder().for_preferences()
    for name in ("mixed", "mixed", "pure"):
        rest = [candidate("c")] if name == "mixed" else []
        encode(judged(prompt, candidate("a", 0), candidate("b", 1), *rest, name=name))
    (record,) = caplog.records
    assert record.getMessage().startswith("mixed, branch 2 has no rank, and answers beside it have one")


def test_worse_answers_that_are_trained_as_true_are_named_once(model, tree, caplog):
    objective = objective_of(Loss(), model)
    row = as_row(dataclasses.replace(tree, source="worse"))
    for _ in range(2):
        objective(model, row)
    (record,) = caplog.records
    assert record.getMessage().startswith("data set 'worse' has answers of rank 1 and beyond")


@pytest.mark.parametrize("on_bad", ["raise", "skip"])
def test_a_line_without_a_pair_is_a_bad_example(tmp_path, on_bad):
    lines = [{"id": f"t{n}", "messages": [{"role": "user", "content": "Who?"}],
              "branches": [candidate("a", 0), candidate("b", n)]} for n in (1, 0)]  # fmt: skip
    path = tiny_recipe(tmp_path, write_jsonl(tmp_path / "train.jsonl", lines))
    loss = "{preference: {name: dpo}, reference: model}"
    recipe = load_recipe(path, {"loss": loss, "data.on_bad": on_bad})
    if on_bad == "raise":
        with pytest.raises(DataError, match=r"train\.jsonl:2: t0: no better and worse answer"):
            training_examples(recipe, build_encoder(recipe))
        return
    examples = training_examples(recipe, build_encoder(recipe))
    assert len(examples) == 1
    assert "t0: no better and worse answer" in str(examples.dropped[0])
