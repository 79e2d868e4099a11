import dataclasses
import functools
import itertools

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from hedgerow.models import answer as answer_module
from hedgerow.models import decode
from hedgerow.models import generate as generate_module
from hedgerow.models.families import families
from hedgerow.models.generate import generate
from hedgerow.models.sampling import Sampling
from hedgerow.sequence import Cost
from hedgerow.text import ChatFormat, load_tokenizer

NEW = 8
CHAT = ChatFormat(load_tokenizer("tiny"))


def extended(sequence, tokens, group=-1):
    """The sequence with causal tokens behind it, without targets."""
    size = len(sequence) + len(tokens)
    own = np.arange(size, dtype=np.int32)
    return dataclasses.replace(
        sequence,
        tokens=np.concatenate([sequence.tokens, tokens]).astype(np.int32),
        position=own,
        order=own,
        end=np.full(size, size, np.int32),
        group=np.concatenate([sequence.group, np.full(len(tokens), group)]).astype(np.int32),
        cost=Cost(tokens=size),
    )


def followed(sequence, other):
    """Two conversations as one, the media of both included."""
    joined = extended(sequence, other.tokens)
    group = np.where(other.group < 0, -1, other.group + sequence.group.max() + 1)
    start = len(sequence.vision.crops) * sequence.vision.patches
    pooling = np.where(other.vision.pooling < 0, -1, other.vision.pooling + start)
    return dataclasses.replace(
        joined,
        group=np.concatenate([sequence.group, group]).astype(np.int32),
        slot=np.concatenate([sequence.slot, other.slot + len(sequence)]).astype(np.int32),
        vision=dataclasses.replace(
            sequence.vision,
            crops=np.concatenate([sequence.vision.crops, other.vision.crops]),
            pooling=np.concatenate([sequence.vision.pooling, pooling]).astype(np.int32),
        ),
    )


def tokens(model, prompts, *, stop=None, most=NEW, **more):
    """The tokens of greedy answers."""
    sampling = Sampling(max_new_tokens=most, stop=() if stop is None else (stop,))
    return [list(answer.tokens) for answer in generate(model, prompts, CHAT, sampling, **more).answers]


def slowly(model, prompt, as_row, *, stop=None, most=NEW):
    """One token at a time, everything computed again for each."""
    answer = []
    for _ in range(most):
        with torch.no_grad():
            hidden = model(as_row(extended(prompt, answer)))
        token = int(model.head(hidden[-1]).argmax())
        if token in (stop, CHAT.stop):
            break
        answer.append(token)
    return answer


@pytest.fixture(scope="module")
def prompts(toy):
    """Questions about three examples, two of them with media, in mixed order and of many lengths."""
    rng = np.random.default_rng(5)
    found = []
    for example, vision in enumerate((6, 0, 6)):
        trees = toy(20 + example, trees=1, nodes=1, messages=3, vision=vision)
        root = dataclasses.replace(trees.conversation(0), example=str(example))
        found += [extended(root, rng.integers(3, 768, count)) for count in (0, 3, 3, 9)]
        found.append(extended(root, [*found[-1].tokens[len(root) :], *rng.integers(3, 768, 2)]))
    return [found[place] for place in rng.permutation(len(found))]


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


def usual(answers):
    """The token that stands first in most answers that have it behind their first place."""
    later = [token for answer in answers for token in answer[2:]]
    return max(set(later), key=later.count)


@pytest.fixture(scope="module")
def stop(model, prompts, as_row):
    return usual([slowly(model, prompt, as_row) for prompt in prompts])


def test_answers_are_those_of_the_model_without_a_cache(model, prompts, as_row, stop):
    expected = [slowly(model, prompt, as_row, stop=stop) for prompt in prompts]
    assert {len(answer) for answer in expected} > {NEW}
    assert tokens(model, prompts, stop=stop) == expected


def test_many_prompts_are_answered_as_each_alone(model, prompts, stop):
    alone = [tokens(model, [prompt], stop=stop)[0] for prompt in prompts]
    assert tokens(model, prompts, stop=stop) == alone


@pytest.mark.parametrize("limit", [1, 40, 150])
def test_small_batches_change_no_answer(model, prompts, stop, limit):
    expected = tokens(model, prompts, stop=stop)
    assert tokens(model, prompts, stop=stop, limit=limit) == expected


@pytest.mark.parametrize("attention", ["dense", "segmented"])
def test_media_behind_the_point_where_prompts_part_are_seen(make_model, toy, as_row, attention):
    model, rng = make_model(attention=attention), np.random.default_rng(0)
    first, second = (toy(seed, trees=1, nodes=1, messages=2).conversation(0) for seed in (31, 32))
    assert first.vision is not None
    assert second.vision is not None
    prompts = [followed(extended(first, rng.integers(3, 768, 2)), second) for _ in range(3)]
    expected = [slowly(model, prompt, as_row) for prompt in prompts]
    assert tokens(model, prompts) == expected


def test_a_group_is_never_cut_where_prompts_part(model, toy, as_row):
    root = toy(33, trees=1, nodes=1).conversation(0)
    assert root.vision is not None
    last = int(root.group.max())
    prompts = [extended(extended(root, [token], group=last), [9, 10]) for token in (20, 21)]
    expected = [slowly(model, prompt, as_row) for prompt in prompts]
    assert tokens(model, prompts) == expected


def test_media_of_one_example_run_once(make_model, prompts):
    model, seen = make_model(), []
    model.hf.model.vision_tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    tokens(model, prompts, most=1, limit=1)
    media = {prompt.example: len(prompt.vision.crops) for prompt in prompts if prompt.vision is not None}
    assert sorted(seen) == sorted(media.values())


def test_the_common_start_is_read_once(make_model, prompts):
    model, read = make_model(), []
    model.hf.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].shape[1])
    )
    tokens(model, prompts, most=1)
    assert read[0] < sum(map(len, prompts)) / 2


def test_other_media_under_the_same_name_are_not_mixed_up(model, toy, as_row):
    root = toy(33, trees=1, nodes=1).conversation(0)
    dark = dataclasses.replace(root, vision=dataclasses.replace(root.vision, crops=root.vision.crops // 4))
    expected = [slowly(model, prompt, as_row) for prompt in (root, dark)]
    assert expected[0] != expected[1]
    assert tokens(model, [root, dark]) == expected


def test_nothing_asked_gives_nothing(model, prompts):
    assert tokens(model, []) == []
    assert tokens(model, prompts[:2], most=0) == [[], []]


def test_the_training_mode_is_left_as_it_was(make_model, prompts, stop):
    model = make_model(gradient_checkpointing=True)
    expected = tokens(model, prompts, stop=stop)
    assert model.train().training
    assert tokens(model, prompts, stop=stop) == expected
    assert model.training
    assert not model.eval().training


def test_bf16_autocast_generates(model, prompts):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = tokens(model, prompts)
    assert [len(answer) for answer in answers] == [NEW] * len(prompts)


def test_a_tree_is_no_prompt(model, toy):
    trees = toy(0, trees=1, nodes=6)
    whole = np.arange(len(trees.forest))
    layout = {name: getattr(trees.forest, name) for name in ("order", "end", "position")}
    tree = trees.sequence(whole, supervised=trees.supervised(), **layout)
    with pytest.raises(ValueError, match="not a tree"):
        tokens(model, [tree], most=1)


def test_a_window_hides_in_decoding_what_it_hides_in_a_forward(make_model, prompts, as_row):
    """No Molmo2 has one; it is passed to every layer by hand."""
    free, model = make_model(attention="dense"), make_model(attention="dense")
    language = model.hf.model.language_model
    language.forward = functools.partial(language.forward, sliding_window=4)
    expected = [slowly(model, prompt, as_row) for prompt in prompts]
    assert expected != [slowly(free, prompt, as_row) for prompt in prompts]
    assert tokens(model, prompts) == expected


SAMPLED = Sampling(max_new_tokens=NEW, temperature=1.5, top_k=40, top_p=0.9, seed=11)


def test_sampled_answers_do_not_depend_on_what_is_in_a_batch(model, prompts):
    expected = generate(model, prompts, CHAT, SAMPLED).answers
    assert generate(model, prompts, CHAT, SAMPLED, limit=40).answers == expected
    other = generate(model, prompts, CHAT, dataclasses.replace(SAMPLED, seed=12)).answers
    assert sum(a.tokens == b.tokens for a, b in zip(other, expected, strict=True)) < 3
    again = generate(model, [prompts[0]] * 6, CHAT, SAMPLED).answers
    assert again[0] == expected[0]
    assert len({answer.tokens for answer in again}) > 3  # one question, several answers


def test_a_penalty_falls_on_what_stands_in_the_answer_and_not_in_the_prompt(model, prompts, as_row):
    def slowly_penalised(prompt, penalty):
        answer = []
        while len(answer) < 3 * NEW:
            with torch.no_grad():
                logits = model.head(model(as_row(extended(prompt, answer)))[-1])
            for token in answer:
                logits[token] -= penalty
            token = int(logits.argmax())
            if token == CHAT.stop:
                break
            answer.append(token)
        return answer

    few = prompts[:3]
    sampling = Sampling(max_new_tokens=3 * NEW, frequency_penalty=1.5)
    found = [list(answer.tokens) for answer in generate(model, few, CHAT, sampling).answers]
    assert found == [slowly_penalised(prompt, 1.5) for prompt in few]
    assert found != tokens(model, few, most=3 * NEW)


@pytest.fixture
def attended(monkeypatch):
    """The shapes of queries and keys each time a layer attends while answers are written."""
    shapes, honest = [], decode.Shared.__call__

    def attend(self, query, key, *more, **options):
        shapes.append((tuple(query.shape), tuple(key.shape)))
        return honest(self, query, key, *more, **options)

    monkeypatch.setattr(decode.Shared, "__call__", attend)
    return shapes


def test_what_questions_share_is_kept_once(model, prompts, attended):
    """Keys of one row of the cache: the tree, and a token a step of each that still writes."""
    asked = [prompt for prompt in prompts if prompt.example == "0"]
    (family,) = families(asked)
    assert min(map(len, tokens(model, asked))) == NEW
    layers, (heads, channels) = 2, (4, 8)
    assert len(attended) == layers * (NEW - 1)
    for number, (query, key) in enumerate(attended):
        step = number // layers + 1
        assert query == (1, heads, len(asked), channels)
        assert key == (1, 2, len(family.tree) + step * len(asked), channels)


@pytest.mark.parametrize("limit", [1, 90, 400])
def test_no_cache_holds_more_than_the_limit_unless_for_one_prompt(model, prompts, attended, limit):
    tokens(model, prompts, limit=limit)
    members = {(query[0], query[2]) for query, key in attended if key[0] * key[2] > limit}
    assert members <= {(1, 1)}
    assert any(query[0] * query[2] > 1 for query, _ in attended) == (limit > 1)


def test_families_end_one_after_another(model, prompts, as_row):
    """Each prompt is a family of its own, and stops when it likes to."""
    alone = [dataclasses.replace(prompt, example=str(number)) for number, prompt in enumerate(prompts)]
    free = [slowly(model, prompt, as_row) for prompt in alone]
    ending = {answer[number % (NEW - 1) + 1] for number, answer in enumerate(free[::2])}
    found = generate(model, alone, CHAT, Sampling(max_new_tokens=NEW, stop=tuple(ending)))
    expected = [list(itertools.takewhile(lambda token: token not in ending, answer)) for answer in free]
    assert [list(answer.tokens) for answer in found.answers] == expected
    assert len(set(map(len, expected))) > 3


def test_the_cache_of_the_row_is_let_go_of_when_it_is_picked_apart(model, prompts, monkeypatch):
    caches, left, honest = [], [], generate_module.Kept.step

    class Watched(DynamicCache):
        def __init__(self):
            super().__init__()
            caches.append(self)

    monkeypatch.setattr(generate_module, "DynamicCache", Watched)
    monkeypatch.setattr(
        generate_module.Kept, "step", lambda *given: left.append(len(caches[-1].layers)) or honest(*given)
    )
    tokens(model, prompts, most=3)
    assert (len(caches), left) == (1, [0, 0])
    tokens(model, prompts, most=3, limit=100)
    assert 2 in left  # several batches: the last one takes it
    assert left[-1] == 0


def test_an_answer_says_what_it_is_and_why_it_ended(model, prompts, stop):
    found = generate(model, prompts, CHAT, Sampling(max_new_tokens=NEW, stop=(stop,)))
    for answer in found.answers:
        assert answer.text == CHAT.decode(answer.tokens)
        assert answer.reason == ("length" if len(answer.tokens) == NEW else "stop")
    assert {answer.reason for answer in found.answers} == {"length", "stop"}
    assert found.tokens == sum(len(answer.tokens) for answer in found.answers)
    assert min(found.prefill_seconds, found.decode_seconds) > 0
    assert found.tokens_per_second == found.tokens / found.decode_seconds
    nothing = generate(model, prompts[:1], CHAT, Sampling(max_new_tokens=0))
    assert (nothing.answers[0].reason, nothing.tokens_per_second) == ("length", 0.0)


def test_the_guard_ends_one_answer_and_lets_the_others_go_on(model, prompts):
    long = Sampling(max_new_tokens=160)
    free = generate(model, prompts, CHAT, long).answers
    guarded = generate(model, prompts, CHAT, dataclasses.replace(long, guard=16)).answers
    ended = [answer.guarded for answer in guarded]
    assert set(ended) == {True, False}
    for answer, other in zip(guarded, free, strict=True):
        assert answer.tokens == other.tokens[: len(answer.tokens)]
        assert answer == other or (answer.guarded and len(answer.tokens) % 16 == 0)


def test_the_guard_knows_how_many_frames_were_seen(model, toy, monkeypatch):
    seen = []
    root = toy(33, trees=1, nodes=1).conversation(0)
    grids = np.array([[1, 1, 1], [41, 1, 1]], np.int32)
    film = dataclasses.replace(root, vision=dataclasses.replace(root.vision, grids=grids))
    text = dataclasses.replace(extended(root, []), slot=root.slot[:0], vision=None, example="text")
    monkeypatch.setattr(answer_module, "degenerate", lambda *_, frames, **__: seen.append(frames) or ())
    generate(model, [film, text], CHAT, Sampling(max_new_tokens=1, guard=1))
    assert sorted(seen) == [0, 41]
