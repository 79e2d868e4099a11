"""The contract: rows joined from sequences, against a reference written token by token; amounts; reprs."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.errors import BudgetError, RecipeError
from hedgerow.sequence import Budget, Cost, Row, Sample, Sequence, VisionInput
from hedgerow.visibility import dense

PATCHES = 4
quick = settings(max_examples=60, deadline=None)


def random_vision(rng, slots):
    crops = int(rng.integers(1, 3))
    width = int(rng.integers(1, 4))
    return VisionInput(
        crops=rng.integers(0, 256, (crops, 2, 2, 3)).astype(np.uint8),
        pooling=rng.integers(-1, crops * PATCHES, (slots, width)).astype(np.int32),
        grids=rng.integers(1, 5, (1, 3)).astype(np.int32),
        patches=PATCHES,
    )


def random_sequence(rng, name, *, axes=1, vision=True, reference=True):
    """Valid shapes and dtypes, meaningless values: joining must not care what they mean."""
    n, m, s = int(rng.integers(1, 9)), int(rng.integers(0, 5)), int(rng.integers(1, 4))
    slots = np.flatnonzero(rng.integers(0, 2, n)).astype(np.int32) if vision else np.zeros(0, np.int32)
    order = rng.permutation(n).astype(np.int32)
    return Sequence(
        example=name,
        tokens=rng.integers(1, 99, n).astype(np.int32),
        position=rng.integers(0, 9, (3, n) if axes == 3 else n).astype(np.int32),
        order=order,
        end=rng.integers(order + 1, n + 1).astype(np.int32),
        group=rng.integers(-1, 3, n).astype(np.int32),
        slot=slots,
        source=rng.integers(0, n, m).astype(np.int32),
        target=rng.integers(1, 99, m).astype(np.int32),
        weight=rng.random(m).astype(np.float32),
        sample=rng.integers(0, s, m).astype(np.int32),
        samples=tuple(Sample(name, str(i), "toys", "qa", 3, 0.5) for i in range(s)),
        cost=Cost(tokens=n, crops=int(rng.integers(0, 3))),
        vision=random_vision(rng, len(slots)) if len(slots) else None,
        reference=-rng.random(m).astype(np.float32) if reference else None,
    )


def random_sequences(seed, **options):
    rng = np.random.default_rng(seed)
    return [random_sequence(rng, f"tree-{i}", **options) for i in range(int(rng.integers(1, 5)))]


BUDGET = Budget(tokens=40, crops=12)


def slow_join(sequences):
    """Token by token, target by target: (fields of tokens, slots, fields of targets)."""
    tokens, slots, targets = [], [], []
    start = groups = samples = 0
    for item in sequences:
        for i in range(len(item.tokens)):
            position = tuple(np.atleast_2d(item.position)[:, i].tolist())
            order, end, group = int(item.order[i]), int(item.end[i]), int(item.group[i])
            group = group + groups if group >= 0 else -1
            tokens.append((int(item.tokens[i]), position, order + start, end + start, group))
        slots += [int(slot) + start for slot in item.slot]
        for i in range(len(item.target)):
            source, sample = int(item.source[i]) + start, int(item.sample[i]) + samples
            targets.append((source, int(item.target[i]), float(item.weight[i]), sample))
        start += len(item.tokens)
        groups += max([-1, *item.group.tolist()]) + 1
        samples += len(item.samples)
    return tokens, slots, targets


def as_lists(row):
    position = [tuple(column) for column in np.atleast_2d(row.position).T.tolist()]
    tokens = zip(
        row.tokens.tolist(), position, row.order.tolist(), row.end.tolist(), row.group.tolist(), strict=True
    )
    targets = (row.source.tolist(), row.target.tolist(), row.weight.tolist(), row.sample.tolist())
    return list(tokens), row.slot.tolist(), list(zip(*targets, strict=True))


@given(st.integers(0, 10**6), st.sampled_from([1, 3]))
@quick
def test_a_row_is_its_sequences_side_by_side(seed, axes):
    sequences = random_sequences(seed, axes=axes)
    row = Row.join(sequences, BUDGET)
    assert as_lists(row) == slow_join(sequences)
    assert row.samples == tuple(sample for item in sequences for sample in item.samples)
    assert row.examples == tuple(item.example for item in sequences)
    assert row.lengths == tuple(len(item) for item in sequences)
    assert len(row) == sum(row.lengths)
    assert row.cost == sum((item.cost for item in sequences), Cost())


@given(st.integers(0, 10**6))
@quick
def test_sequences_of_a_row_see_themselves_as_before_and_each_other_never(seed):
    sequences = random_sequences(seed)
    row = Row.join(sequences, BUDGET, pad=True)
    blocks = [dense(item.order, item.end, item.group) for item in sequences]
    expected = np.zeros((len(row), len(row)), bool)
    start = 0
    for block in [*blocks, *[np.ones((1, 1), bool)] * (len(row) - sum(row.lengths))]:
        expected[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    assert (dense(row.order, row.end, row.group) == expected).all()


@given(st.integers(0, 10**6))
@quick
def test_each_slot_of_a_row_pools_the_patches_of_its_own_sequence(seed):
    sequences = random_sequences(seed)
    row = Row.join(sequences, BUDGET)
    if row.vision is None:
        assert not any(len(item.slot) for item in sequences)
        return
    crops = [crop.tolist() for item in sequences if item.vision for crop in item.vision.crops]
    assert row.vision.crops.tolist() == crops
    slow, start = [], 0
    for item in sequences:
        if item.vision:
            slow += [[p + start for p in window if p >= 0] for window in item.vision.pooling.tolist()]
            start += len(item.vision.crops) * PATCHES
    assert [[p for p in window if p >= 0] for window in row.vision.pooling.tolist()] == slow
    assert len(row.vision.pooling) == len(row.slot)
    assert row.vision.grids.tolist() == [
        g for item in sequences if item.vision for g in item.vision.grids.tolist()
    ]


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("pad", [False, True])
def test_dtypes_and_shapes_are_those_of_the_contract(axes, pad):
    row = Row.join(random_sequences(3, axes=axes), BUDGET, pad=pad)
    for name in ("tokens", "position", "order", "end", "group", "slot", "source", "target", "sample"):
        assert getattr(row, name).dtype == np.int32, name
    assert row.weight.dtype == row.reference.dtype == np.float32
    assert row.position.shape == ((3, len(row)) if axes == 3 else (len(row),))
    assert (row.vision.crops.dtype, row.vision.pooling.dtype) == (np.uint8, np.int32)
    assert row.vision.grids.dtype == np.int32


@pytest.mark.parametrize("axes", [1, 3])
def test_padding_fills_the_budget_and_sees_only_itself(axes):
    sequences = random_sequences(3, axes=axes)
    plain, padded = Row.join(sequences, BUDGET), Row.join(sequences, BUDGET, pad=True)
    n = len(plain)
    assert len(padded) == BUDGET["tokens"]
    own = np.arange(n, len(padded))
    assert not padded.position[..., n:].any()
    assert (padded.order[n:] == own).all()
    assert (padded.end[n:] == own + 1).all()
    assert (padded.group[n:] == -1).all()
    for name in ("tokens", "position", "order", "end", "group"):
        assert (getattr(padded, name)[..., :n] == getattr(plain, name)).all(), name
    for name in ("slot", "source", "target", "weight", "sample"):
        assert (getattr(padded, name) == getattr(plain, name)).all(), name
    assert padded.cost == plain.cost


def test_joining_changes_no_sequence():
    sequences = random_sequences(5)
    before = copy.deepcopy(sequences)
    Row.join(sequences, BUDGET, pad=True)
    for item, old in zip(sequences, before, strict=True):
        for field in dataclasses.fields(item):
            if field.name != "vision":
                np.testing.assert_array_equal(getattr(item, field.name), getattr(old, field.name))
        if item.vision:
            np.testing.assert_array_equal(item.vision.pooling, old.vision.pooling)


def test_a_sequence_without_reference_values_brings_values_no_loss_can_use():
    rng = np.random.default_rng(0)
    given_one = random_sequence(rng, "with")
    without = random_sequence(rng, "without", reference=False)
    row = Row.join([given_one, without], BUDGET)
    m = len(given_one.target)
    assert (row.reference[:m] == given_one.reference).all()
    assert np.isnan(row.reference[m:]).all()
    assert len(row.reference) == len(row.target)
    assert Row.join([without], BUDGET).reference is None


def test_a_row_over_budget_is_refused_and_the_excess_named():
    with pytest.raises(BudgetError, match=r"tree-0.*tokens \d+ > 2.*pack fewer"):
        Row.join(random_sequences(3), Budget(tokens=2))


def test_crops_with_different_numbers_of_patches_cannot_share_a_row():
    rng = np.random.default_rng(0)
    one = random_vision(rng, 2)
    with pytest.raises(RecipeError, match=r"one number of patches, got \['4', '9'\]; give images and"):
        VisionInput.join([one, dataclasses.replace(one, patches=9)])
    assert VisionInput.join([]) is None


def test_crops_of_different_shapes_or_levels_cannot_share_a_row():
    one = random_vision(np.random.default_rng(0), 2)
    with pytest.raises(RecipeError, match="must have one shape"):
        VisionInput.join([one, dataclasses.replace(one, crops=one.crops[:, 1:])])
    told = [dataclasses.replace(one, levels=np.full((3, 256), n, np.float32)) for n in (0, 1)]
    for pair in (told, [one, told[0]]):
        with pytest.raises(RecipeError, match="must have one table of levels"):
            VisionInput.join(pair)


def test_a_row_moves_to_torch_with_the_dtypes_models_want():
    row = Row.join(random_sequences(3), BUDGET)
    moved = row.to("cpu")
    assert moved.tokens.dtype == moved.order.dtype == moved.sample.dtype == torch.int64
    assert moved.weight.dtype == torch.float32
    assert moved.vision.crops.dtype == torch.uint8
    assert moved.vision.pooling.dtype == torch.int64
    assert moved.vision.patches == PATCHES
    assert (moved.examples, moved.cost, moved.samples) == (row.examples, row.cost, row.samples)
    assert moved.tokens.tolist() == row.tokens.tolist()
    assert isinstance(row.tokens, np.ndarray)


def test_a_row_as_a_dict_is_flat():
    row = Row.join(random_sequences(3), BUDGET)
    fields = row.to_dict()
    assert fields["tokens"] is row.tokens
    assert fields["vision_crops"] is row.vision.crops
    assert "vision" not in fields
    bare = Row.join([random_sequence(np.random.default_rng(1), "text", vision=False)], BUDGET).to_dict()
    assert not any(name.startswith("vision") for name in bare)


def test_a_row_travels_between_processes():
    row = Row.join(random_sequences(3), BUDGET)
    again = pickle.loads(pickle.dumps(row))
    assert (again.cost, again.budget, again.samples) == (row.cost, row.budget, row.samples)
    assert (again.vision.pooling == row.vision.pooling).all()
    assert (type(again.cost), type(again.budget)) == (Cost, Budget)


def test_a_row_shows_its_fill_and_the_tasks_of_each_tree():
    sequences = random_sequences(3)
    sequences[1] = dataclasses.replace(sequences[1], example="tree-0")  # names need not differ
    shown = repr(Row.join(sequences, BUDGET)).splitlines()
    assert shown[0].startswith(f"Row of {len(sequences)} trees: ")
    assert "of 40 tokens (" in shown[0]
    assert len(shown) == 1 + len(sequences)
    for item, line in zip(sequences, shown[1:], strict=True):
        tasks = ", ".join(["qa x3"] * len(set(item.sample.tolist()))) or "no targets"
        assert line.endswith(f" {item.example}: {len(item)} tokens ({tasks})")
    assert "targets (qa x3" in repr(sequences[0])


def test_a_row_on_an_accelerator_shows_itself_too(monkeypatch):
    row = Row.join(random_sequences(3), BUDGET)

    def refuse(*_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    moved = row.to("cpu")
    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    assert repr(moved) == repr(row)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
)
@quick
def test_costs_add_and_fit_name_by_name(one, other):
    total = Cost(**one) + Cost(**other)
    assert type(total) is Cost
    assert all(total[name] == one.get(name, 0) + other.get(name, 0) for name in {*one, *other})
    budget = Budget(**other)
    assert budget.fits(Cost(**one)) == all(one.get(name, 0) <= most for name, most in other.items())
    assert budget.fits(Cost(**one)) == (budget.excess(Cost(**one)) == "")


def test_amounts_are_whole_not_negative_and_compare_by_value():
    assert Cost(tokens=3, crops=1) == Cost(crops=1, tokens=3)
    assert hash(Cost(tokens=3, crops=1)) == hash(Cost(crops=1, tokens=3))
    assert Cost(tokens=np.int64(3)) == Cost(tokens=3.0)
    assert repr(Budget(tokens=16384, crops=128)) == "Budget(tokens=16384, crops=128)"
    assert Budget(tokens=3).excess(Cost(tokens=5, crops=9)) == "tokens 5 > 3"
    for wrong in (-1, 2.5):
        with pytest.raises(ValueError, match="whole amount that is not negative"):
            Cost(tokens=wrong)
