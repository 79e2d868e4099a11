"""The laws hold on a tiny model, and each breaks when the code it is about is broken."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
from transformers import Olmo3Config, Olmo3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from hedgerow import verify, visibility
from hedgerow.attention.register import BACKENDS, Visibility, adopt, choose
from hedgerow.build import build_model
from hedgerow.encode import encoder as encoder_module
from hedgerow.encode.writer import Writer
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


def asked(*question, answer):
    return [turn("user", *question), turn("assistant", answer)]


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
            "messages": [*asked(WIDE, "One?", answer="Yes."), *asked(TALL, "And?", answer="b")],
            "branches": [
                {"messages": [*asked(WIDE, "Again?", answer="c d"), *asked(TALL, answer="e")]},
                {"messages": asked("Sure?", answer="f")},
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


LAWS = [1, 2, 3, "3 on integers", 4, 13, "13 on integers"]


@pytest.fixture
def check(model, trees):
    """Run all laws: which held, by number."""

    def run(*, given=trees, of=model, encoder=None):
        found = verify.verify(of, encoder or tiny_encoder(), given)
        assert [finding.law for finding in found.findings] == [1, 2, 3, 3, 4, 13, 13]
        assert found.passed is all(finding.passed for finding in found.findings)
        return dict(zip(LAWS, found.findings, strict=True))

    return run


class TextModel(torch.nn.Module):
    """Somebody's own model on rows: a Qwen3 that reads tokens and nothing else."""

    def __init__(self, hf):
        super().__init__()
        self.hf, self.layers, self.attention = hf, adopt(hf), None

    @property
    def device(self):
        return self.hf.lm_head.weight.device

    def embed(self, row):
        return self.hf.get_input_embeddings()(row.tokens)

    def language(self, embeddings, row):
        visibility = Visibility(choose(self.attention or "dense")(row), layers=self.layers)
        hidden = self.hidden(embeddings, self.position(row), visibility=visibility)
        visibility.check()
        return hidden

    def hidden(self, embeddings, position, **more):
        found = self.hf.model(
            inputs_embeds=embeddings[None], position_ids=position[None], use_cache=False, **more
        )
        return found.last_hidden_state[0]

    def position(self, row):
        return row.position

    def head(self, hidden):
        return self.hf.lm_head(hidden)

    def parameter_groups(self):
        return {"all": list(self.parameters())}


SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 1024, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
SLIDING = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}


def text_model(kind=TextModel):
    torch.manual_seed(0)
    return kind(Qwen3ForCausalLM(Qwen3Config(**SIZES)))


class Changed:
    """An encoder whose sequences are changed: `change(sequence, owner)` returns fields to replace."""

    def __init__(self, change):
        self.honest, self.change = tiny_encoder(), change

    def __call__(self, tree):
        sequence, lengths = self.honest(tree), self.lengths(tree)
        owner = np.repeat(np.arange(len(lengths)), lengths)[sequence.order]
        return dataclasses.replace(sequence, **self.change(sequence, owner))

    def lengths(self, tree):
        return self.honest.lengths(tree)


def broken(found):
    return {law for law, finding in found.items() if not finding.passed}


def see(monkeypatch, change, *names):
    """Let backends work on another row than the one that was given."""
    for name in names:
        honest = BACKENDS[name]
        monkeypatch.setitem(BACKENDS, name, lambda row, honest=honest: honest(change(row)))


def test_all_laws_hold_on_images_video_turns_and_text(check, model):
    model.train()
    found = check()
    assert broken(found) == set()
    assert model.training
    # 4 + 3 + 1 samples, all with something off their path; three targets of each, or all of fewer.
    tokens, targets = found["3 on integers"].cases, found["13 on integers"].cases
    assert [finding.cases for finding in found.values()] == [48, 8, 8, tokens, 1, 22, targets]
    assert tokens > targets == 48
    assert all(found[law].error == 0.0 for law in LAWS if law not in (1, 2, 4))
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
    honest = encoder_module.linearize
    monkeypatch.setattr(
        encoder_module, "linearize", lambda *shape: (made := honest(*shape))._replace(position=made.order)
    )
    assert broken(check()) == {2}


def test_law_2_breaks_when_a_branch_has_other_tokens_than_its_conversation(check, monkeypatch):
    honest = Writer._add

    def add(self, draft, history, above, group):
        if len(history) > 1 and not draft.tokens:
            draft.add(self.chat.encode("-").tokens)
        return honest(self, draft, history, above, group)

    monkeypatch.setattr(Writer, "_add", add)
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
    honest = BACKENDS["dense"]

    def half(row):
        attend = honest(row)
        return lambda q, k, v, **more: attend(q.detach(), k, v, **more)

    monkeypatch.setitem(BACKENDS, "dense", half)
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
    honest = encoder_module._sources
    monkeypatch.setattr(encoder_module, "_sources", lambda target, *more: honest(target, *more) + 1)
    assert 13 in broken(check())


def test_all_laws_hold_on_a_model_of_somebody_else(check):
    assert broken(check(of=text_model())) == set()


def test_all_laws_hold_on_a_model_with_windows(check):
    assert broken(check(of=TextModel(Olmo3ForCausalLM(Olmo3Config(**SIZES, **SLIDING))))) == set()


@pytest.mark.parametrize("mask", [None, 2])
def test_a_model_whose_attention_ignores_the_visibility_is_caught(check, mask):
    """Both ways in which transformers makes a mask of its own: from position jumps, and from a 2-D mask."""

    class Ignores(TextModel):
        def language(self, embeddings, row):
            given = None if mask is None else torch.ones(1, len(embeddings), dtype=torch.long)
            return self.hidden(embeddings, row.position, attention_mask=given)

    model = text_model(Ignores)
    model.hf.set_attn_implementation("sdpa")
    found = check(of=model)
    assert broken(found) >= {2} if mask is None else broken(found) >= {1, 2, 3}
    assert not broken(found) & {"3 on integers", "13 on integers"}


def test_a_model_whose_attention_was_changed_later_breaks_every_law_it_runs_in(check):
    model = text_model()
    model.hf.set_attn_implementation("sdpa")
    found = check(of=model)
    assert broken(found) == {1, 2, 3, 4, 13}
    assert "attention ran 0 times with this visibility" in found[3].problem
    assert "ran 0 times" in str(found[3])
    assert "look at the pairs named as leaks, then the model" in str(found[3])


class Mean(torch.nn.Module):
    """A causal mean: mixes tokens without asking anybody."""

    def forward(self, hidden_states, **_):
        count = torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        return hidden_states.cumsum(1) / count, None


def test_a_layer_that_bypasses_the_interface_is_caught_with_and_without_the_count(check):
    class Uncounted(TextModel):
        def language(self, embeddings, row):
            seen = Visibility(choose(self.attention or "dense")(row), layers=self.layers)
            return self.hidden(embeddings, row.position, visibility=seen)

    for kind in (TextModel, Uncounted):
        model = text_model(kind)
        model.hf.model.layers[1].self_attn = Mean()
        found = check(of=model)
        assert broken(found) >= {1, 2, 3}
        assert ("ran 1 times" in found[3].problem) is (kind is TextModel)


def test_a_second_model_of_the_same_config_changes_nothing_or_is_caught(check):
    config = Qwen3Config(**SIZES)
    model = TextModel(Qwen3ForCausalLM(config))
    Qwen3ForCausalLM._from_config(config, attn_implementation="eager")
    assert broken(check(of=model)) == set()
    model.hf.model.config = model.hf.config = config  # as if adopt had made no copies
    for layer in model.hf.model.layers:
        layer.self_attn.config = config
    assert "ran 0 times" in check(of=model)[3].problem


def test_wrong_positions_are_caught(check):
    class Counts(TextModel):
        def position(self, row):
            return torch.arange(len(row))

    assert broken(check(of=text_model(Counts))) == {2}


@pytest.mark.parametrize("attention", ["dense", "segmented"])
def test_an_end_that_is_one_too_far_is_caught(check, attention):
    def far(sequence, owner):
        return {"end": (sequence.end + (owner == 1) * (sequence.end < len(owner))).astype(np.int32)}

    model = text_model()
    model.attention = attention
    found = check(of=model, encoder=Changed(far))
    assert broken(found) >= {2, 3, "3 on integers"}
    assert found["3 on integers"].error > 0
    assert found[3].error > 0


def test_an_end_that_is_one_too_near_is_caught(check):
    def near(sequence, owner):
        return {"end": (sequence.end - ((owner == 0) & (owner.max() > 0))).astype(np.int32)}

    # Only the last token of each tree is blind, and no loss comes from it: gradients cannot tell.
    assert broken(check(of=text_model(), encoder=Changed(near))) == {"3 on integers"}


def test_a_group_that_spans_an_answer_is_caught(check, trees):
    def span(sequence, owner):
        return {"group": np.where(owner == 0, 0, -1).astype(np.int32)}

    found = check(of=text_model(), encoder=Changed(span), given=trees[1:2])
    assert broken(found) >= {13, "13 on integers"}
    assert not broken(found) & {1, 3, 4, "3 on integers"}


def test_a_group_that_holds_a_source_and_its_target_is_caught(check, trees):
    def pair(sequence, owner):
        places = sequence.order[sequence.source[0]] + np.arange(2)
        return {"group": np.where(np.isin(sequence.order, places), 0, -1).astype(np.int32)}

    found = check(of=text_model(), encoder=Changed(pair), given=trees[2:])
    assert broken(found) >= {13, "13 on integers"}
    assert found["13 on integers"].error == 1


def test_a_group_of_two_branches_is_caught(check):
    def shared(sequence, owner):
        return {"group": np.where(owner > 0, 0, -1).astype(np.int32)}

    assert broken(check(of=text_model(), encoder=Changed(shared))) >= {3, "3 on integers"}


def test_an_order_that_is_no_order_is_named(check):
    found = check(of=text_model(), encoder=Changed(lambda sequence, _: {"order": sequence.order // 2}))
    assert "each logical place of the row once" in found["3 on integers"].problem


def test_lengths_that_do_not_fit_are_named(check):
    class Short(Changed):
        def lengths(self, tree):
            return (*self.honest.lengths(tree)[:-1], 1)

        def __call__(self, tree):
            return self.honest(tree)

    found = check(encoder=Short(None))
    assert broken(found) == {3, "3 on integers", 13, "13 on integers"}
    assert "film: the encoder makes" in found[3].problem


def test_a_backend_that_drops_the_gradient_of_the_log_sum_exp_is_caught(check, monkeypatch):
    """Right forwards: two halves of the keys, merged by log-sum-exp as a constant."""

    def halves(row):
        visible = visibility.dense(row.order, row.end, row.group)

        def attend(query, key, value, *, scale, window=None):
            key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
            outs, sums = [], []
            for parity in (0, 1):
                seen = visible & (torch.arange(len(visible)) % 2 == parity)
                scores = (query @ key.mT * scale).masked_fill(~seen, -1e4)
                outs.append(scores.softmax(-1) @ value)
                sums.append(scores.logsumexp(-1, keepdim=True).detach())
            return sum(share * out for share, out in zip(torch.stack(sums).softmax(0), outs, strict=True))

        return attend

    honest = check()
    monkeypatch.setitem(BACKENDS, "segmented", halves)
    found = check()
    assert found[1].passed
    assert not found[4].passed
    assert found[4].error > 1e-3 > honest[4].error


def test_the_isolation_matrix_names_who_moves_whom(model, trees):
    found = verify.verify(model, tiny_encoder(), trees).isolation
    assert found.names == (
        "film", "film 0", "film 1", "film 2", "film 2.0", "film 2.1", "turns", "turns 0", "turns 1", "text",
    )  # fmt: skip
    assert [found.names[node] for node in found.losses] == [
        "film 0", "film 1", "film 2.0", "film 2.1", "turns", "turns 0", "turns 1", "text",
    ]  # fmt: skip
    paths = ["film|film 0", "film|film 1", "film|film 2|film 2.0", "film|film 2|film 2.1", "turns"]
    paths += ["turns|turns 0", "turns|turns 1", "text"]
    for moved, path in zip(found.greatest, paths, strict=True):
        assert {name for name, by in zip(found.names, moved, strict=True) if by > 0} == set(path.split("|"))
    assert found.leaks == []


def test_laws_are_checked_in_the_words_of_the_user(check):
    found = check()
    lines = str(found[3]).splitlines()
    assert lines[0] == (
        "law  3  holds  no branch and no tree moves another's loss: error 0 (at most 0) in 8 losses"
    )
    assert all(len(str(finding).splitlines()) == 2 and finding.look for finding in found.values())
    nothing = verify.Finding(3, "no leak", 0.0, 0.0, 0)
    assert str(nothing) == "law  3  ----  no leak: nothing to check in these trees"
    assert not nothing.passed
    whole = verify.Verification((nothing, verify.Finding(1, "one", 0.0, 1e-5, 3)))
    assert whole.passed  # a text without branches has nothing that could leak
    assert whole.to_dict()["findings"][1] == {
        "law": 1, "what": "one", "error": 0.0, "allowed": 1e-5, "cases": 3, "problem": "", "unit": "cases",
        "means": "", "look": "", "passed": True,
    }  # fmt: skip
    bad = verify.Finding(1, "one", float("nan"), 1e-5, 3)
    assert not bad.passed
    assert not verify.Verification((bad,)).passed


def test_a_model_that_gives_nan_does_not_pass(check, recipe):
    spoilt: Molmo2 = build_model(recipe)
    with torch.no_grad():
        spoilt.hf.lm_head.weight[0, 0] = float("nan")
    assert broken(check(of=spoilt)) >= {1, 2, 13}


def test_each_finding_is_told_before_the_next_law_is_checked(model, trees, monkeypatch):
    told = []
    first, second, *_ = verify._LAWS
    late = dataclasses.replace(second, check=lambda _: (float(len(told)), 1))
    monkeypatch.setattr(verify, "_LAWS", (first, late, *verify._LAWS[2:3]))
    found = verify.verify(model, tiny_encoder(), trees[2:], say=told.append)
    assert found.findings[1].error == 1.0
    assert told == [str(finding) for finding in found.findings]


def test_a_recipe_is_verified_on_its_first_trees(recipe, tmp_path):
    told = []
    given = recipe.model_copy(update={"context": 2})
    out = tmp_path / "laws.html"
    found = verify.verify_recipe(given, name="mine.yaml", trees=2, out=out, say=told.append)
    assert found.passed
    assert found.findings[1].cases == 7
    assert told[0] == "context: 2 is left out: the laws are checked by one process on whole rows"
    assert told[1] == found.subject
    assert re.fullmatch(
        r"mine.yaml: model fresh weights \(.*M parameters, cpu\), data .*d.jsonl, 2 trees", told[1]
    )
    assert told[2:] == [*map(str, found.findings), found.summary, f"wrote {out}"]
    assert found.summary.endswith("\npassed: 7 checks, none broken")
    page = out.read_text()
    assert found.to_dict()["subject"] in page
    assert re.search(r'<td>turns</td><td class="n">\d+</td><td>qa x3, qa x3, qa x1</td>', page)
    assert verify.verify_recipe(recipe).findings[1].cases == 8
    with pytest.raises(RecipeError, match="give at least 1"):
        verify.verify_recipe(recipe, trees=0)


@pytest.mark.parametrize("name", ["laws.html", "new/mask.png"])
def test_a_recipe_is_verified_to_a_page_or_a_picture(recipe, tmp_path, name):
    assert verify.verify_recipe(recipe, trees=1, out=tmp_path / name).passed
    assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(RecipeError, match=r"name a page \(\.html\) or a picture"):
        verify.verify_recipe(recipe, out=tmp_path / "laws.pdf")


def test_a_recipe_whose_pixels_are_all_bad_cannot_be_verified(folder, tmp_path):
    (tmp_path / "a.png").write_bytes((folder / "a.png").read_bytes()[:-2000])
    data = write_jsonl(
        tmp_path / "d.jsonl", [{"id": "x", "messages": [turn("user", WIDE, "?"), turn("assistant", "a")]}]
    )
    recipe = load_recipe(tiny_recipe(tmp_path, data), {"data.on_bad": "skip"})
    with pytest.raises(DataError, match="no example can be decoded"):
        verify.verify_recipe(recipe)
