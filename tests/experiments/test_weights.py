"""Arms differ in weights alone; what was cut off ends as if it had not been."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from hedgerow.build import build_encoder, build_model, training_examples
from hedgerow.errors import DataError, RecipeError
from hedgerow.experiments.weights import exam as exams
from hedgerow.experiments.weights.ablate import Ablation, ablate
from hedgerow.experiments.weights.arms import UNIFORM, WEIGHTED, ablation_arms, sweep_arms
from hedgerow.experiments.weights.figures import estimate
from hedgerow.experiments.weights.pages import change
from hedgerow.experiments.weights.sweep import Sweep, sweep
from hedgerow.experiments.weights.trials import Settings, Trials
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_encoder, tiny_recipe, write_jsonl, write_mp4
from hedgerow.train.run import row_loader, run
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.weights import Weighting

FIELDS = ("tokens", "position", "order", "end", "group", "slot", "source", "target", "sample")


def branch(task, question, answer):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"task": task, "messages": turns}


def clip(number):
    """A clip with one question of each task that is measured, and one that is not."""
    start = 0.5 * (number % 3)
    video = {"type": "video", "path": "v.mp4", "start": start, "end": start}
    spot = [
        {"type": "points", "label": "square", "points": [{"time": 0.0, "x": 0.2 + 0.2 * number, "y": 0.5}]}
    ]
    return {
        "id": f"clip-{number}",
        "messages": [{"role": "user", "content": [video]}],
        "branches": [
            branch("video_caption", "Say it.", "A bright square rolls to the right."),
            branch("counting", "How many?", str(number)),
            branch("multiple_choice", "Which?\nA. one\nB. two", "AB"[number % 2] + ". it"),
            branch("pointing", "Point to the square.", spot),
            branch("qa", "Why?", "So."),
        ],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_mp4(folder / "v.mp4")
    write_jsonl(folder / "clips.jsonl", map(clip, range(4)))
    return folder


@pytest.fixture
def path(folder, tmp_path):
    return tiny_recipe(tmp_path, folder / "clips.jsonl", evaluate=folder / "clips.jsonl", steps=4)


@pytest.fixture
def recipe(path):
    return load_recipe(path, {"save_every": "3", "data.workers": "1"})


def silent(_):
    return None


# Arms


def rows_of(recipe):
    loader = row_loader(recipe, training_examples(recipe, build_encoder(recipe)))
    return [loaded.row for _ in range(2) for loaded in loader]


def test_arms_of_a_seed_begin_alike_and_see_the_same_rows_with_other_weights(recipe, tmp_path):
    arms = ablation_arms(recipe.weights)
    first, second = (arm.recipe(recipe, seed=3, out=tmp_path) for arm in arms)
    other = arms[0].recipe(recipe, seed=4, out=tmp_path)
    assert len({one.out for one in (first, second, other)}) == 3
    models = [build_model(one).state_dict() for one in (first, second, other)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not all(torch.equal(models[0][name], models[2][name]) for name in models[0])
    pairs = list(zip(rows_of(first), rows_of(second), strict=True))
    assert len(pairs) > 2
    for one, two in pairs:
        assert one.examples == two.examples
        assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in FIELDS)
        assert np.array_equal(one.vision.crops, two.vision.crops)
        assert not np.array_equal(one.weight, two.weight)
        assert set(two.weight.tolist()) == {1.0}
    assert [row.examples for row in rows_of(first)] != [row.examples for row in rows_of(other)]


def test_arms_differ_from_the_recipe_in_nothing_but_weights_seed_and_folder(recipe, tmp_path):
    for arm in (
        *ablation_arms(recipe.weights),
        *sweep_arms(recipe.weights, {"video_caption": [0.5], "pointing": [1.0]})[0],
    ):
        changed = arm.recipe(recipe, seed=7, out=tmp_path).to_dict()
        before = recipe.to_dict()
        assert {name for name in before if before[name] != changed[name]} <= {"weights", "seed", "out"}


def test_weights_that_are_none_have_nothing_to_be_left_out():
    with pytest.raises(RecipeError, match="uniform"):
        ablation_arms(Weighting(preset="uniform"))


def weights_by_task(weights):
    answers = {"video_caption": "A square.", "pointing": "there", "tracking": "there", "counting": "3"}
    asked = tuple(
        Branch((Message("user", "?"), Message("assistant", text)), task=task)
        for task, text in answers.items()
    )
    found = tiny_encoder(weights=weights)(MessageTree("t", (Message("user", "Look."),), asked))
    return {
        sample.task: set(found.weight[found.sample == number].tolist())
        for number, sample in enumerate(found.samples)
    }


def line_arms(lines):
    return [arm for line in lines for arm in line.arms]


@pytest.mark.parametrize(
    "given", [{}, {"scale": {"pointing": 3.0, "counting": 2.0}}, {"preset": "molmo2_code"}]
)
def test_a_sweep_gives_tokens_the_wanted_weight_and_leaves_other_tasks_alone(given):
    weights = Weighting(**given)
    usual = weights_by_task(weights)
    arms, lines = sweep_arms(weights, {"video_caption": (0.05, 0.1, 0.5), "pointing": (1.0, 0.2)})
    named = {arm.name: weights_by_task(arm.weights) for arm in arms}
    assert [line.weights for line in lines] == [(0.05, 0.1, 0.5), (0.2, 1.0)]
    for line, other in zip(lines, ("pointing", "video_caption"), strict=True):
        for weight, arm in zip(line.weights, line.arms, strict=True):
            assert list(named[arm][line.task]) == [pytest.approx(weight)]
            assert named[arm]["tracking"] == usual["tracking"]
            assert named[arm]["counting"] == usual["counting"]
            assert list(named[arm][other]) == pytest.approx(list(usual[other]))
    assert len(arms) == len(set(line_arms(lines)))  # what stands on both lines is run once
    assert len(arms) == (5 if "scale" in given else 4)


@pytest.mark.parametrize(
    ("weights", "captions", "said"),
    [
        (Weighting(tasks={"pointing": 0.3}), [0.1], "weights.tasks.pointing"),
        (Weighting(), [0.1, 0.0], "above 0"),
        (Weighting(), [], "above 0"),
    ],
)
def test_a_sweep_refuses_weights_it_cannot_set(weights, captions, said):
    with pytest.raises(RecipeError, match=said):
        sweep_arms(weights, {"video_caption": captions, "pointing": [0.2]})


def image_captions(weights):
    return {
        text: weights.sample("image_caption", "", len(text)) for text in ("a", "a bc", "a much longer one")
    }


def test_a_task_weighed_by_length_is_given_flat_weights_on_its_own_line_alone():
    weights = Weighting(scale={"image_caption": 2.0, "counting": 3.0})
    arms, lines = sweep_arms(weights, {"image_caption": (0.1, 0.5), "pointing": (0.2, 1.0)})
    named = {arm.name: arm.weights for arm in arms}
    assert [arm for line in lines for arm in line.arms] == [
        "image_caption-0.1-pointing-0.2", "image_caption-0.5-pointing-0.2",
        "image_caption-usual-pointing-0.2", "image_caption-usual-pointing-1",
    ]  # fmt: skip
    for weight, arm in zip((0.1, 0.5), lines[0].arms, strict=True):
        assert set(image_captions(named[arm]).values()) == {weight}
    for weight, arm in zip((0.2, 1.0), lines[1].arms, strict=True):
        assert image_captions(named[arm]) == image_captions(weights)
        assert named[arm].sample("pointing", "", 9) == pytest.approx(weight)
    assert {one.sample("counting", "", 4) for one in named.values()} == {6.0}


# What is said


def trials_of(gains, recipe):
    """Trials with planted gains by task at the last of two steps, the same noise in both arms."""
    exam = exams.write_exam(recipe, build_encoder(recipe), points=2, trees=None)
    rng = np.random.default_rng(0)
    tasks = [question.task for question in exam.questions]
    base = np.clip(rng.normal(0.5, 0.02, (3, 2, len(tasks))), 0, 1)
    scores = base + rng.normal(0, 0.005, base.shape)
    scores[:, 1] += [gains.get(task, 0.0) for task in tasks]
    return Trials(exam, (0, 1, 2), {WEIGHTED: scores, UNIFORM: base}, np.full(len(tasks), 0.25))


@pytest.mark.parametrize(
    ("gains", "short", "captions"),
    [
        ({"counting": 0.1, "multiple_choice": 0.1, "video_caption": -0.1}, "the same way", "the same way"),
        ({"counting": -0.1, "multiple_choice": -0.1, "video_caption": 0.1}, "the other way", "the other way"),
        ({}, "nothing can be told", "nothing can be told"),
    ],
)
def test_the_result_says_which_way_scores_moved_also_against_the_paper(
    gains, short, captions, recipe, tmp_path
):
    result = Ablation(trials_of(gains, recipe), tmp_path / "r.html")
    said = result.sentences
    assert [line.split(" at step 4")[0] for line in said[:-1]] == ["Short answers", "Captions", "Pointing"]
    told = {"the same way": "higher", "the other way": "lower"}.get(short, "no difference can be told")
    assert f"{told} with weights: {result.gain('short answers')[-1].value:+.3f}" in said[0]
    assert f"short answers: {short}" in said[-1]
    assert f"captions: {captions}" in said[-1]
    assert "no difference can be told with weights" in said[2]
    first, last = result.gain("short answers")
    assert first.sign == 0  # at the first step nothing is planted
    mean = result.mean_gain("short answers")
    assert mean.value == pytest.approx((first.value + last.value) / 2)
    assert f"over the 2 steps: {mean.value:+.3f}" in said[0]


def test_a_sweep_says_what_more_weight_changes(recipe, tmp_path):
    arms, lines = sweep_arms(recipe.weights, {"video_caption": (0.05, 0.1), "pointing": (0.2, 1.0)})
    base = trials_of({}, recipe)
    level = {"video_caption-0.05-pointing-0.2": 0.0, "video_caption-0.1-pointing-1": -0.2}
    noise = np.random.default_rng(3).normal(0, 0.005, (len(arms), *base.scores[UNIFORM].shape))
    scores = {
        arm.name: base.scores[UNIFORM] + level.get(arm.name, 0.1) + noise[place]
        for place, arm in enumerate(arms)
    }
    result = Sweep(dataclasses.replace(base, scores=scores), lines, tmp_path / "r.html")
    found = result.to_dict()
    for line, gain, word in zip(found["lines"], (0.1, -0.3), ("higher", "lower"), strict=True):
        for measure in base.exam.measures:
            assert line["heaviest less lightest"][measure][-1]["value"] == pytest.approx(gain, abs=0.02)
        told = [said for said in found["result"] if said.startswith(line["task"])]
        assert len(told) == 3
        assert all(f"{word} with more weight" in said for said in told)


def test_measures_hold_the_questions_of_their_tasks_and_tell_the_constant(recipe):
    trials = trials_of({}, recipe)
    assert {measure: len(places) for measure, places in trials.exam.measures.items()} == {
        "short answers": 8, "multiple_choice": 4, "counting": 4, "captions": 4, "pointing": 4,
    }  # fmt: skip
    assert "qa" not in {question.task for question in trials.exam.questions}
    assert trials.floor("captions") == 0.25


@pytest.mark.parametrize(
    ("seeds", "said"), [(1, " (one seed, over trees alone): "), (2, " (2 seeds): "), (3, "with weights: ")]
)
def test_a_verdict_names_its_seeds_where_they_are_few(seeds, said, recipe, tmp_path):
    told = {0.3: "higher", -0.3: "lower", 0.0: "no difference can be told"}
    for gain, word in told.items():
        noise = np.random.default_rng(0).normal(0, 1e-3, (seeds, 40))
        found = estimate(gain + noise - noise.mean(), list(map(str, range(40))), least=-1.0)
        verdict = change(found, what="with weights")
        assert verdict.startswith(f"{word} with weights")
        assert said in verdict
        assert ("seed" in verdict) == (seeds < 3)
    trials = trials_of({"counting": 0.1, "multiple_choice": 0.1}, recipe)
    few = {arm: scores[:seeds] for arm, scores in trials.scores.items()}
    trials = dataclasses.replace(trials, scores=few, seeds=trials.seeds[:seeds])
    sentences = Ablation(trials, tmp_path / "r.html").sentences
    assert all(("seed" in line) == (seeds < 3) for line in sentences)


# Whole experiments


def test_ablate_from_the_command_line(hedgerow, path, tmp_path):
    words = ("experiment", "weights", "ablate", path, "--seeds", 2, "--points", 2, "--data.workers", 1)
    code, out, err = hedgerow(*words, "--out", tmp_path / "x", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["seeds"], found["trees"]) == ([0, 1], 4)
    assert set(found["arms"]) == {WEIGHTED, UNIFORM}
    for measure, count in found["questions"].items():
        for arm in found["arms"].values():
            assert [(one["step"], one["n"], len(one["by_seed"])) for one in arm[measure]] == [
                (2, count, 2), (4, count, 2),
            ]  # fmt: skip
            assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in arm[measure])
        means = [found["arms"][arm][measure][-1]["value"] for arm in (WEIGHTED, UNIFORM)]
        assert found["differences"][measure][-1]["value"] == pytest.approx(means[0] - means[1])
    page = (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    assert all(line.split(";")[0] in page for line in found["result"])
    assert page.count("<svg") == 2 * len(found["questions"])
    code, again, err = hedgerow(*words, "--out", tmp_path / "x")  # all is done: read and told as text
    assert (code, "going on from step 4 of 4" in err) == (0, True)
    assert found["result"][0] in again
    assert again.splitlines()[-1] == f"report: {tmp_path / 'x' / 'report.html'}"


def test_a_cut_off_experiment_ends_as_if_it_had_not_been(recipe, tmp_path, monkeypatch):
    settings = Settings(tmp_path / "whole", seeds=1, points=2)
    whole = ablate(recipe, settings, say=silent).to_dict()
    calls = []
    asked = exams.ask

    def cut(*given, **options):
        calls.append(len(calls))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return asked(*given, **options)

    monkeypatch.setattr(exams, "ask", cut)
    settings = dataclasses.replace(settings, out=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        ablate(recipe, settings, say=silent)
    again = ablate(recipe, settings, say=silent).to_dict()
    assert len(calls) == 5  # what was answered is not asked again
    assert {**again, "report": ""} == {**whole, "report": ""}
    for step in (2, 4):
        answers = [
            (tmp_path / name / "uniform-0" / "answers" / f"step-{step:08d}.jsonl").read_text()
            for name in ("whole", "cut")
        ]
        assert answers[0] == answers[1]


def test_a_folder_with_other_questions_is_refused(recipe, tmp_path):
    ablate(recipe, Settings(tmp_path, seeds=1, points=1, trees=2), say=silent)
    for changed in ({"trees": 4, "points": 1}, {"trees": 2, "points": 2}):
        with pytest.raises(RecipeError, match=r"no answers to these \d+ questions.*--out"):
            ablate(recipe, Settings(tmp_path, seeds=1, **changed), say=silent)


def test_questions_on_the_way_change_nothing_of_a_run(recipe, tmp_path):
    ablate(recipe, Settings(tmp_path / "asked", seeds=1, points=2), say=silent)
    plain = ablation_arms(recipe.weights)[0].recipe(recipe, seed=0, out=tmp_path / "plain")
    model = run(plain).model
    files = [folder / "model.safetensors" for folder in (model, tmp_path / "asked" / "weighted-0" / "model")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_sweep_tells_the_trade_off_of_each_task(recipe, tmp_path):
    settings = Settings(tmp_path, seeds=1, points=1)
    result = sweep(recipe, settings, captions=(0.1, 0.5), pointing=(0.2, 1.0), say=silent)
    found = result.to_dict()
    assert len(found["arms"]) == 3
    assert [(line["task"], line["weights"]) for line in found["lines"]] == [
        ("video_caption", [0.1, 0.5]),
        ("pointing", [0.2, 1.0]),
    ]
    assert all(line["arms"][0] == "video_caption-0.1-pointing-0.2" for line in found["lines"])
    assert len(found["result"]) == 6
    page = result.report.read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "trees alone" in page  # one seed
    assert not result.notes


def only(folder, tmp_path, *tasks):
    """Clips whose branches are of some tasks alone."""
    lines = [clip(number) for number in range(4)]
    for line in lines:
        line["messages"][0]["content"][0]["path"] = str(folder / "v.mp4")
        line["branches"] = [
            {**one, "task": "image_caption"} if one["task"] == "video_caption" else one
            for one in line["branches"]
            if one["task"] in tasks
        ]
    return write_jsonl(tmp_path / "only.jsonl", lines)


def swept(path, folder, tmp_path, *tasks):
    recipe = load_recipe(
        path,
        {"data.train.0.path": str(only(folder, tmp_path, *tasks)), "data.workers": "1", "steps": "1"},
    )
    said = []
    settings = Settings(tmp_path / "swept", seeds=1, points=1, trees=2)
    return sweep(recipe, settings, captions=(0.1, 0.5), pointing=(0.2,), say=said.append), said


def test_a_sweep_leaves_out_a_task_that_nothing_is_trained_on(path, folder, tmp_path):
    result, said = swept(path, folder, tmp_path, "pointing", "qa")
    assert [(line.task, line.arms) for line in result.lines] == [("pointing", ("pointing-0.2",))]
    (note,) = result.notes
    assert "video_caption and image_caption: not swept" in note
    assert "the training data have pointing, qa" in note
    assert note in said
    assert note in result.report.read_text(encoding="utf-8")


def test_a_sweep_takes_captions_of_images_where_there_are_no_others(path, folder, tmp_path):
    result, _ = swept(path, folder, tmp_path, "video_caption", "qa")
    assert [(line.task, line.weights) for line in result.lines] == [("image_caption", (0.1, 0.5))]
    losses = [
        (tmp_path / "swept" / f"image_caption-{weight}-0" / "model" / "model.safetensors").read_bytes()
        for weight in (0.1, 0.5)
    ]
    assert losses[0] != losses[1]
    assert "pointing: not swept" in result.notes[0]
    assert "best constant reply is what can be scored without looking" in result.report.read_text()


def test_nothing_to_sweep_is_refused(path, folder, tmp_path):
    with pytest.raises(RecipeError, match="nothing to sweep: the training data have counting, qa;"):
        swept(path, folder, tmp_path, "counting", "qa")
    assert not list((tmp_path / "swept").glob("*-0"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", "0"), "seeds is 0"),
        (("--points", "5"), "give 1 to 4"),
        (("--trees", "1"), "at least 2"),
        (("--weights.preset", "uniform"), "both arms"),
        (("--data.evaluate", "[]"), "data.evaluate"),
    ],
)
def test_bad_options_are_one_line(hedgerow, path, tmp_path, words, said):
    code, out, err = hedgerow("experiment", "weights", "ablate", path, *words, "--data.workers", 1)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_data_without_a_question_that_is_measured_are_refused(recipe, folder, tmp_path):
    other = {
        "id": "q",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}],
    }
    file = write_jsonl(tmp_path / "qa.jsonl", [other])
    asked = recipe.model_copy(update={"data": recipe.data.model_copy(update={"evaluate": (file,)})})
    with pytest.raises(DataError, match="multiple_choice"):
        ablate(asked, Settings(tmp_path / "x", seeds=1, points=1), say=silent)


def test_several_processes_are_refused(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="torchrun"):
        ablate(recipe, Settings(tmp_path, seeds=1, points=1), say=silent)
