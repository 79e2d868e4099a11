"""A whole run: what it says at its end, and what a run that has ended says when it is started again."""

import json
from dataclasses import replace

import pytest

from hedgerow import read_trees
from hedgerow.build import build_encoder
from hedgerow.data.transforms import Transforms
from hedgerow.errors import RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.testing import tiny_recipe, write_jsonl, write_mp4
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
    assert str(trained).startswith(f"{recipe.out / 'model'}: 1 steps on {seen} of 12 examples, ")


def test_a_run_that_has_ended_says_so_before_its_data_are_looked_at(recipe, capfd, monkeypatch):
    first = run(recipe)
    capfd.readouterr()

    def measured(*_, **__):
        raise AssertionError("the data were measured")

    monkeypatch.setattr("hedgerow.train.run.training_examples", measured)
    again = run(recipe)
    assert again == replace(first, finished=True)
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
    assert run(recipe).finished


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
        f"{tmp_path / 'model'}: 600 steps on 200 examples, each about 4.25 times, 54 dropped, 61 s",
        *(f"  dropped d.jsonl:{n}: no answer" for n in range(5)),
        f"  and 49 more; all are in {tmp_path / 'trained.json'}",
    ]
    trained.write()
    assert json.loads((tmp_path / "trained.json").read_text())["dropped"] == [*dropped]
    assert Trained.read(tmp_path) == replace(trained, finished=True)
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
        "out; raise vision.fps or vision.max_frames, or show shorter clips"
    ]
