import dataclasses
import functools

import numpy as np
import pytest
import torch

from hedgerow.models.generate import generate
from hedgerow.sequence import Cost

NEW = 8


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


def slowly(model, prompt, as_row, *, stop, most=NEW):
    """One token at a time, everything computed again for each."""
    answer = []
    for _ in range(most):
        with torch.no_grad():
            hidden = model(as_row(extended(prompt, answer)))
        token = int(model.head(hidden[-1]).argmax())
        if token == stop:
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
    return usual([slowly(model, prompt, as_row, stop=-1) for prompt in prompts])


def test_answers_are_those_of_the_model_without_a_cache(model, prompts, as_row, stop):
    expected = [slowly(model, prompt, as_row, stop=stop) for prompt in prompts]
    assert {len(answer) for answer in expected} > {NEW}
    assert generate(model, prompts, max_new_tokens=NEW, stop=stop) == expected


def test_many_prompts_are_answered_as_each_alone(model, prompts, stop):
    alone = [generate(model, [prompt], max_new_tokens=NEW, stop=stop)[0] for prompt in prompts]
    assert generate(model, prompts, max_new_tokens=NEW, stop=stop) == alone


@pytest.mark.parametrize("limit", [1, 40, 150])
def test_small_batches_change_no_answer(model, prompts, stop, limit):
    expected = generate(model, prompts, max_new_tokens=NEW, stop=stop)
    assert generate(model, prompts, max_new_tokens=NEW, stop=stop, limit=limit) == expected


@pytest.mark.parametrize("attention", ["dense", "segmented"])
def test_media_behind_the_point_where_prompts_part_are_seen(make_model, toy, as_row, attention):
    model, rng = make_model(attention=attention), np.random.default_rng(0)
    first, second = (toy(seed, trees=1, nodes=1, messages=2).conversation(0) for seed in (31, 32))
    assert first.vision is not None
    assert second.vision is not None
    prompts = [followed(extended(first, rng.integers(3, 768, 2)), second) for _ in range(3)]
    expected = [slowly(model, prompt, as_row, stop=-1) for prompt in prompts]
    assert generate(model, prompts, max_new_tokens=NEW, stop=-1) == expected


def test_a_group_is_never_cut_where_prompts_part(model, toy, as_row):
    root = toy(33, trees=1, nodes=1).conversation(0)
    assert root.vision is not None
    last = int(root.group.max())
    prompts = [extended(extended(root, [token], group=last), [9, 10]) for token in (20, 21)]
    expected = [slowly(model, prompt, as_row, stop=-1) for prompt in prompts]
    assert generate(model, prompts, max_new_tokens=NEW, stop=-1) == expected


def test_media_of_one_example_run_once(make_model, prompts):
    model, seen = make_model(), []
    model.hf.model.vision_tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    generate(model, prompts, max_new_tokens=1, stop=-1, limit=1)
    media = {prompt.example: len(prompt.vision.crops) for prompt in prompts if prompt.vision is not None}
    assert sorted(seen) == sorted(media.values())


def test_the_common_start_is_read_once(make_model, prompts):
    model, read = make_model(), []
    model.hf.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].shape[1])
    )
    generate(model, prompts, max_new_tokens=1, stop=-1)
    assert read[0] < sum(map(len, prompts)) / 2


def test_other_media_under_the_same_name_are_not_mixed_up(model, toy, as_row):
    root = toy(33, trees=1, nodes=1).conversation(0)
    dark = dataclasses.replace(root, vision=dataclasses.replace(root.vision, crops=root.vision.crops // 4))
    expected = [slowly(model, prompt, as_row, stop=-1) for prompt in (root, dark)]
    assert expected[0] != expected[1]
    assert generate(model, [root, dark], max_new_tokens=NEW, stop=-1) == expected


def test_nothing_asked_gives_nothing(model, prompts):
    assert generate(model, [], max_new_tokens=NEW, stop=-1) == []
    assert generate(model, prompts[:2], max_new_tokens=0, stop=-1) == [[], []]


def test_the_training_mode_is_left_as_it_was(make_model, prompts, stop):
    model = make_model(gradient_checkpointing=True)
    expected = generate(model, prompts, max_new_tokens=NEW, stop=stop)
    assert model.train().training
    assert generate(model, prompts, max_new_tokens=NEW, stop=stop) == expected
    assert model.training
    assert not model.eval().training


def test_bf16_autocast_generates(model, prompts):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = generate(model, prompts, max_new_tokens=NEW, stop=-1)
    assert [len(answer) for answer in answers] == [NEW] * len(prompts)


def test_a_tree_is_no_prompt(model, toy):
    trees = toy(0, trees=1, nodes=6)
    whole = np.arange(len(trees.forest))
    layout = {name: getattr(trees.forest, name) for name in ("order", "end", "position")}
    tree = trees.sequence(whole, supervised=trees.supervised(), **layout)
    with pytest.raises(ValueError, match="not a tree"):
        generate(model, [tree], max_new_tokens=1, stop=-1)


def test_a_window_hides_in_decoding_what_it_hides_in_a_forward(make_model, prompts, as_row):
    """No Molmo2 has one; it is passed to every layer by hand."""
    free, model = make_model(attention="dense"), make_model(attention="dense")
    language = model.hf.model.language_model
    language.forward = functools.partial(language.forward, sliding_window=4)
    expected = [slowly(model, prompt, as_row, stop=-1) for prompt in prompts]
    assert expected != [slowly(free, prompt, as_row, stop=-1) for prompt in prompts]
    assert generate(model, prompts, max_new_tokens=NEW, stop=-1) == expected
