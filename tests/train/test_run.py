"""A whole run: what it says at its end, and what a run that has ended says when it is started again."""

import json
from dataclasses import replace

import pytest

from hedgerow import read_trees
from hedgerow.build import build_encoder
from hedgerow.data.transforms import HighResolution, Transforms
from hedgerow.errors import DataError, RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.recipe.sections import Rate
from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4, write_png
from hedgerow.train.run import Trained, run
from hedgerow.weights import Weighting


@pytest.fixture
def recipe(tmp_path):
    answer = {"role": "assistant", "content": "That."}  # the same of each, behind questions of many lengths
    asked = [[{"role": "user", "content": "What? " * (1 + n**2 % 50)}, answer] for n in range(12)]
    data = write_jsonl(
        tmp_path / "d.jsonl", [{"id": str(n), "messages": said} for n, said in enumerate(asked)]
    )
    return load_recipe(tiny_recipe(tmp_path, data, steps=2))


def test_a_short_run_says_how_many_examples_it_saw(recipe):
    trained = run(recipe.model_copy(update={"steps": 1, "rows_per_step": 1}))
    assert 0 < trained.epochs < 1
    targets = json.loads((recipe.out / "metrics.jsonl").read_text())["tasks"]["qa"]["targets"]
    seen = targets // len(build_encoder(recipe)(next(read_trees(recipe.data.train[0].path))).target)
    assert trained.epochs == pytest.approx(seen / 12)
    assert str(trained).startswith(f"{recipe.out / 'model'}: 1 step on {seen} of 12 examples, ")


def test_a_run_that_has_ended_says_so_before_its_data_are_looked_at(recipe, capfd, monkeypatch):
    first = run(recipe)
    capfd.readouterr()

    def measured(*_, **__):
        raise AssertionError("the data were measured")

    monkeypatch.setattr("hedgerow.train.run.training_examples", measured)
    again = run(recipe)
    assert again == replace(first, earlier=True)
    assert "2 steps are done; add --fresh to train anew; to train longer give a new 'out'" in str(again)
    assert f"'init: {recipe.out}'" in str(again)
    assert capfd.readouterr().err == "going on from step 2 of 2: nothing is left to train\n"
    with pytest.raises(RecipeError, match=r"step-00000002 is of another run: seed was 0, is 7"):
        run(recipe.model_copy(update={"seed": 7}))
    with pytest.raises(AssertionError, match="were measured"):
        run(recipe, fresh=True)


def test_a_run_that_was_cut_off_before_it_ended_is_gone_through_again(recipe):
    whole = run(recipe)
    weights = (recipe.out / "model" / "model.safetensors").read_bytes()
    (recipe.out / "trained.json").write_text("{")
    again = run(recipe)
    assert replace(again, seconds=whole.seconds) == whole
    assert (recipe.out / "model" / "model.safetensors").read_bytes() == weights
    assert run(recipe).earlier


def test_what_another_run_left_is_gone_once_a_fresh_one_begins(recipe, monkeypatch):
    run(recipe)

    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hedgerow.train.run.train", cut)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, fresh=True)
    assert not (recipe.out / "trained.json").exists()


def test_the_first_dropped_examples_are_printed_and_all_are_written(tmp_path):
    dropped = tuple(f"d.jsonl:{n}: no answer" for n in range(54))
    trained = Trained(tmp_path / "model", 600, 200, 4.25, dropped, 61.2)
    assert str(trained).splitlines() == [
        f"{tmp_path / 'model'}: 600 steps on 200 examples, each about 4.25 times; 54 dropped, 61 s",
        *(f"  dropped d.jsonl:{n}: no answer" for n in range(5)),
        f"  and 49 more; all are in {tmp_path / 'trained.json'}",
    ]
    trained.write()
    written = json.loads((tmp_path / "trained.json").read_text())
    assert (written["dropped"], written["finished"]) == ([*dropped], True)
    assert "earlier" not in written
    assert Trained.read(tmp_path) == replace(trained, earlier=True)
    # Written before there were these two, "finished" was false of a run that was.
    before = {name: value for name, value in written.items() if name != "undecoded"} | {"finished": False}
    (tmp_path / "trained.json").write_text(json.dumps(before))
    assert Trained.read(tmp_path) == replace(trained, earlier=True)
    assert str(replace(trained, dropped=dropped[:5])).count("\n") == 5


def test_names_in_the_recipe_that_no_example_has_are_told(recipe, caplog):
    weights = Weighting(sources={"data": 1.0, "dta": 2.0}, scale={"tracking": 0.5})
    run(recipe.model_copy(update={"weights": weights, "steps": 1}))
    assert [record.getMessage() for record in caplog.records if "no example" in record.getMessage()] == [
        "weights.scale.tracking: no example has the task 'tracking'; they have qa",
        "weights.sources.dta: no example has the source 'dta'; they have data",
    ]
    for field, changed in {
        "weights.tasks.pionting": {"weights": Weighting(tasks={"pionting": 1.0})},
        "weights.schedule.pionting": {"weights": Weighting(schedule={"pionting": ((0, 1.0),)})},
        "data.transforms.templates.pionting": {
            "data": recipe.data.model_copy(
                update={"transforms": Transforms(templates={"pionting": ("{text}",)})}
            )
        },
        "data.transforms.high_resolution.tasks.pionting": {
            "data": recipe.data.model_copy(
                update={"transforms": Transforms(high_resolution=HighResolution(tasks=("pionting",)))}
            )
        },
    }.items():
        with pytest.raises(RecipeError, match=f"^{field}: no example .*did you mean 'pointing'"):
            run(recipe.model_copy(update=changed), fresh=True)


def test_points_that_no_sampled_frame_shows_are_told_in_one_line_a_data_set(tmp_path, capfd):
    def asked(*times):
        points = [{"x": 0.5, "y": 0.5, "time": time} for time in times]
        part = {"type": "points", "label": "ball", "points": points}
        said = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": [part]}]
        return {"messages": said}

    clip = {
        "type": "video",
        "path": str(write_mp4(tmp_path / "v.mp4")),
        "max_frames": 2,
    }  # seen at 0 and 1.5 s
    trees = [
        {
            "id": f"c{n}",
            "messages": [{"role": "user", "content": [clip]}],
            "branches": [asked(0.0), asked(*times)],
            "task": "pointing",
        }
        for n, times in enumerate([(0.7, 0.8), (0.7, 1.4), (0.2, 1.4)])
    ]
    short = write_jsonl(tmp_path / "short.jsonl", trees[2:])
    recipe = load_recipe(tiny_recipe(tmp_path, write_jsonl(tmp_path / "clips.jsonl", trees), steps=1))
    train = recipe.data.train
    both = (*train, replace(train[0], path=short))
    trained = run(recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": both})}))
    assert trained.dropped == ()
    assert [line for line in capfd.readouterr().err.splitlines() if "points" in line] == [
        "clips.jsonl: 3 of 9 points (33.3 %) fall between sampled frames and are not taught; 1 branch left "
        "out; `hedgerow data view` shows where (problem: points lost)"
    ]


def test_counts_of_a_run_add_up_when_images_turn_out_to_be_damaged(tmp_path):
    def row(name, path):
        parts = [{"type": "image", "path": path}]
        said = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Noise."}]
        return {"id": name, "messages": said}

    whole = write_png(tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    names = ["a.png", "gone.png", "a.png", "cut.png", "gone.png", "a.png"]
    data = write_jsonl(tmp_path / "d.jsonl", [row(str(n), name) for n, name in enumerate(names)])
    recipe = load_recipe(tiny_recipe(tmp_path, data, steps=2), {"data.on_bad": "skip", "rows_per_step": "1"})
    trained = run(recipe.model_copy(update={"packing": recipe.packing.model_copy(update={"pool": 1})}))
    assert (trained.examples, len(trained.dropped), trained.undecoded) == (4, 3, 1)
    assert trained.examples + len(trained.dropped) - trained.undecoded == len(names)
    assert "4 examples" in str(trained)
    assert "; 3 dropped (2 before, 1 of these when decoded), " in str(trained)
    assert [line for line in trained.dropped if "cut.png" in line] == [trained.dropped[-1]]


@pytest.mark.parametrize(
    ("epochs", "dropped", "undecoded", "said"),
    [
        (1.0, 0, 0, "2 steps on 12 examples, once each, 0 s"),
        (1.0004, 0, 0, "2 steps on 12 examples, once each, 0 s"),
        (1.5, 2, 0, "2 steps on 12 examples, each about 1.5 times; 2 dropped, 0 s"),
        (0.5, 15, 2, "2 steps on 6 of 12 examples; 15 dropped (13 before, 2 of these when decoded), 0 s"),
    ],
)
def test_what_a_run_saw_is_said_in_words(tmp_path, epochs, dropped, undecoded, said):
    bad = tuple(f"d.jsonl:{n}: no" for n in range(dropped))
    trained = Trained(tmp_path / "model", 2, 12, epochs, bad, 0.0, undecoded)
    assert str(trained).splitlines()[0] == f"{tmp_path / 'model'}: {said}"


def test_an_input_that_is_gone_is_named_before_the_run_is_compared(recipe, tmp_path):
    run(recipe)
    moved = replace(recipe.data.train[0], path=tmp_path / "dd.jsonl")
    tokens = recipe.model.model_copy(update={"tokenizer": str(tmp_path / "tokens")})
    other = {
        f"data.train.0.path: {tmp_path / 'dd.jsonl'}": {
            "data": recipe.data.model_copy(update={"train": (moved,)})
        },
        f"model.tokenizer: {tmp_path / 'tokens'}": {"model": tokens},
    }
    for named, changed in other.items():
        with pytest.raises(DataError, match=f"^{named}: no such file; correct the path, or put the file"):
            run(recipe.model_copy(update=changed))


def test_a_warm_up_as_long_as_the_run_is_told(recipe, capfd):
    def told(**rates):
        optimizer = recipe.optimizer.model_copy(
            update={name: Rate(lr=lr, warmup=warmup) for name, (lr, warmup) in rates.items()}
        )
        run(recipe.model_copy(update={"optimizer": optimizer}), fresh=True)
        return [line for line in capfd.readouterr().err.splitlines() if "warm-up" in line]

    assert told(vision=(1e-3, 0), connector=(1e-3, 1), language=(1e-3, 1)) == []
    assert told(vision=(0.0, 200), connector=(1e-3, 1), language=(1e-3, 4)) == [
        "the warm-up is as long as the run of 2 steps: optimizer.language.warmup is 4, and the rate ends at "
        "50 % of its peak; lower it, or train longer"
    ]
    (line,) = told(vision=(1e-3, 2), connector=(1e-3, 200), language=(1e-3, 200))
    assert (
        "optimizer.vision.warmup, optimizer.connector.warmup, optimizer.language.warmup are 2 to 200" in line
    )


def test_points_of_another_task_are_told_at_the_start(tmp_path, capfd):
    part = {"type": "points", "label": "dot", "points": [{"x": 0.5, "y": 0.5}]}
    shown = {"type": "image", "path": str(write_png(tmp_path / "a.png"))}
    said = [{"role": "user", "content": [shown]}, {"role": "assistant", "content": [part]}]
    rows = [
        {"id": name, "messages": said} | ({"task": name} if name != "none" else {})
        for name in ("none", "pointing", "counting", "mine")
    ]
    recipe = load_recipe(tiny_recipe(tmp_path, write_jsonl(tmp_path / "d.jsonl", rows), steps=1))
    run(recipe)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "points or tracks" in line]
    assert line.startswith("3 answers give points or tracks under a task other than pointing and tracking")
    assert line.endswith('give their branches "task": "pointing" or "tracking"')
    weights = Weighting(tasks={"mine": 0.2, "qa": 0.2, "counting": 0.2})
    run(recipe.model_copy(update={"weights": weights}), fresh=True)
    assert "points or tracks" not in capfd.readouterr().err
