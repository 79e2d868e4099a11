"""The laws hold on a tiny model, and each breaks when the code it is about is broken."""

import dataclasses
import itertools

import pytest
import torch

from hedgerow import encode, verify
from hedgerow.build import build_model
from hedgerow.errors import DataError, RecipeError
from hedgerow.models.molmo2 import Molmo2
from hedgerow.recipe import load_recipe
from hedgerow.sequence import VisionInput
from hedgerow.testing import tiny_encoder, tiny_recipe, write_jsonl, write_mp4, write_png
from hedgerow.tree import read_trees


def turn(role, *content):
    return {
        "role": role,
        "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in content],
    }


VIDEO, WIDE, TALL = (
    {"type": kind, "path": path}
    for kind, path in (("video", "v.mp4"), ("image", "a.png"), ("image", "b.png"))
)
SPOT = {"type": "points", "label": "spot", "points": [{"x": 0.5, "y": 0.5, "time": 0.5}]}


def lines():
    """Trees with branches, images, a video, media in every turn, ranked answers and answers at the root."""
    return [
        {
            "id": "film",
            "messages": [turn("user", VIDEO)],
            "branches": [
                {"task": "pointing", "messages": [turn("user", "Where?"), turn("assistant", SPOT)]},
                {"messages": [turn("user", "Who?"), turn("assistant", "They.")], "weight": 0.5},
                {
                    "messages": [turn("user", "Why?")],
                    "branches": [
                        {"messages": [turn("assistant", text)], "rank": n}
                        for n, text in enumerate(("So.", "No"))
                    ],
                },
            ],
        },
        {
            "id": "turns",
            "messages": [
                turn("user", WIDE, "One?"),
                turn("assistant", "Yes."),
                turn("user", TALL, "And?"),
                turn("assistant", "b"),
            ],
            "branches": [
                {
                    "messages": [
                        turn("user", WIDE, "Again?"),
                        turn("assistant", "c d"),
                        turn("user", TALL),
                        turn("assistant", "e"),
                    ]
                },
                {"messages": [turn("user", "Sure?"), turn("assistant", "f")]},
            ],
        },
        {"id": "text", "messages": [turn("user", "Hi"), turn("assistant", "Hello")]},
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_mp4(folder / "v.mp4")
    write_png(folder / "a.png", size=(40, 30))
    write_png(folder / "b.png", size=(20, 40), seed=1)
    write_jsonl(folder / "d.jsonl", lines())
    return folder


@pytest.fixture(scope="module")
def recipe(folder):
    return load_recipe(tiny_recipe(folder, folder / "d.jsonl"))


@pytest.fixture(scope="module")
def trees(folder):
    return list(read_trees(folder / "d.jsonl"))


@pytest.fixture(scope="module")
def model(recipe):
    return build_model(recipe)


@pytest.fixture
def check(model, trees):
    """Run all laws: which held, by number."""

    def run(*, given=trees, of=model):
        found = verify.verify(of, tiny_encoder(), given)
        assert [finding.law for finding in found.findings] == [1, 2, 3, 4, 13]
        assert found.passed is all(finding.passed for finding in found.findings)
        return {finding.law: finding for finding in found.findings}

    return run


def broken(found):
    return {law for law, finding in found.items() if not finding.passed}


def see(monkeypatch, change, *names):
    """Let backends work on another row than the one that was given."""
    for name in names:
        honest = verify.BACKENDS[name]
        monkeypatch.setitem(verify.BACKENDS, name, lambda row, honest=honest: honest(change(row)))


def test_all_laws_hold_on_images_video_turns_and_text(check, model):
    model.train()
    found = check()
    assert broken(found) == set()
    assert model.training
    # 4 + 3 + 1 samples, all with something off their path; three targets of each, or all of fewer.
    assert {law: finding.cases for law, finding in found.items()} == {1: 48, 2: 8, 3: 8, 4: 1, 13: 22}
    assert found[3].error == found[13].error == 0.0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_all_laws_hold_on_one_tree(model, trees, place):
    found = verify.verify(model, tiny_encoder(), trees[place : place + 1])
    assert found.passed
    assert [finding.law for finding in found.findings if not finding.cases] == ([3] if place == 2 else [])


def test_law_1_breaks_when_the_windows_of_a_row_all_show_its_first_crops(check, monkeypatch):
    honest = VisionInput.join

    def join(inputs):
        made = honest(inputs)
        return made and dataclasses.replace(
            made, pooling=made.pooling % (inputs[0].patches * len(inputs[0].crops))
        )

    monkeypatch.setattr(VisionInput, "join", join)
    assert 1 in broken(check())


def test_law_2_breaks_when_branches_do_not_restart_where_their_parent_ends(check, monkeypatch):
    honest = encode.linearize
    monkeypatch.setattr(
        encode, "linearize", lambda *shape: (made := honest(*shape))._replace(position=made.order)
    )
    assert broken(check()) == {2}


def test_law_2_breaks_when_a_branch_has_other_tokens_than_its_conversation(check, monkeypatch):
    honest = encode.Encoder._add_text

    def add_text(self, draft, history, number, media):
        if number and len(draft.tokens) == 0:
            draft.add(self.chat.encode("-").tokens)
        honest(self, draft, history, number, media)

    monkeypatch.setattr(encode.Encoder, "_add_text", add_text)
    assert 2 in broken(check())


def test_laws_1_and_3_break_when_trees_of_a_row_see_each_other(check, monkeypatch):
    def leak(row):
        root = row.end == row.end[0]  # of the first tree's root
        return dataclasses.replace(row, end=torch.where(root, len(row), row.end))

    see(monkeypatch, leak, "dense", "segmented")
    assert broken(check()) == {1, 3}


def test_laws_2_and_3_break_when_branches_see_each_other(check, monkeypatch):
    def leak(row):
        starts = [0, *torch.tensor(row.lengths).cumsum(0).tolist()]
        end = row.end.clone()
        for start, stop in itertools.pairwise(starts):
            end[start:stop] = stop
        return dataclasses.replace(row, end=end)

    see(monkeypatch, leak, "dense", "segmented")
    assert broken(check()) == {2, 3}


def test_law_4_breaks_when_one_backend_forgets_the_groups(check, monkeypatch):
    see(monkeypatch, lambda row: dataclasses.replace(row, group=torch.full_like(row.group, -1)), "segmented")
    assert broken(check()) == {4}


def test_law_4_breaks_when_a_backend_is_right_forwards_and_wrong_backwards(check, monkeypatch):
    honest = verify.BACKENDS["dense"]

    def half(row):
        attend = honest(row)
        return lambda q, k, v, **more: attend(q.detach(), k, v, **more)

    monkeypatch.setitem(verify.BACKENDS, "dense", half)
    assert broken(check()) == {4}


def test_law_13_breaks_when_a_group_spans_an_answer(check, monkeypatch, trees):
    """As it would if one group held all images of a node, and the answers between."""
    root = tiny_encoder().lengths(trees[1])[0]

    def span(row):
        group = row.group.clone()
        group[:root] = 1000
        return dataclasses.replace(row, group=group)

    see(monkeypatch, span, "dense", "segmented")
    found = check(given=trees[1:2])
    assert 13 in broken(found)
    assert not broken(found) & {1, 4}


def test_law_13_breaks_when_the_target_is_its_own_source(check, monkeypatch):
    honest = encode._sources
    monkeypatch.setattr(encode, "_sources", lambda target, *more: honest(target, *more) + 1)
    assert 13 in broken(check())


def test_laws_are_checked_in_the_words_of_the_user(check):
    lines = [str(finding) for finding in check().values()]
    assert (
        lines[2] == "law  3  holds  no branch and no tree moves another's loss: 0.0e+00 (at most 0; 8 cases)"
    )
    nothing = verify.Finding(3, "no leak", 0.0, 0.0, 0)
    assert str(nothing) == "law  3  ----  no leak: nothing to check in these trees"
    assert not nothing.passed
    whole = verify.Verification((nothing, verify.Finding(1, "one", 0.0, 1e-5, 3)))
    assert whole.passed  # a text without branches has nothing that could leak
    assert whole.to_dict()["findings"][1] == {
        "law": 1, "what": "one", "error": 0.0, "allowed": 1e-5, "cases": 3, "passed": True,
    }  # fmt: skip
    bad = verify.Finding(1, "one", float("nan"), 1e-5, 3)
    assert not bad.passed
    assert not verify.Verification((bad,)).passed


def test_a_model_that_gives_nan_does_not_pass(check, recipe):
    spoilt: Molmo2 = build_model(recipe)
    with torch.no_grad():
        spoilt.hf.lm_head.weight[0, 0] = float("nan")
    assert broken(check(of=spoilt)) == {1, 2, 13}


def test_a_recipe_is_verified_on_its_first_trees(recipe):
    found = verify.verify_recipe(recipe, trees=2)
    assert found.passed
    assert found.findings[1].cases == 7
    assert verify.verify_recipe(recipe).findings[1].cases == 8
    with pytest.raises(RecipeError, match="give at least 1"):
        verify.verify_recipe(recipe, trees=0)


def test_a_recipe_whose_pixels_are_all_bad_cannot_be_verified(folder, tmp_path):
    (tmp_path / "a.png").write_bytes((folder / "a.png").read_bytes()[:-2000])
    data = write_jsonl(
        tmp_path / "d.jsonl", [{"id": "x", "messages": [turn("user", WIDE, "?"), turn("assistant", "a")]}]
    )
    recipe = load_recipe(tiny_recipe(tmp_path, data), {"data.on_bad": "skip"})
    with pytest.raises(DataError, match="no example can be decoded"):
        verify.verify_recipe(recipe)
