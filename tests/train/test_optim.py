import pytest
import torch
from torch import nn

from hedgerow.errors import RecipeError
from hedgerow.recipe import Rate, Schedule
from hedgerow.train.optim import Optimizers, learning_rate, linear_matrices


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 0.5),  # 2 * 1/4
        (2, 1.0),  # 2 * 2/4
        (4, 2.0),  # peak, where warm-up ends
        (12, 1.1),  # half way from 4 to 20: 2 * (0.1 + 0.9 * 0.5 * (1 + cos(pi / 2)))
        (8, 1.7363961),  # a quarter: 2 * (0.1 + 0.9 * 0.5 * (1 + 0.70710678))
        (20, 0.2),  # floor
    ],
)
def test_cosine_goes_from_zero_over_the_peak_to_the_floor(step, expected):
    rate = Rate(lr=2.0, warmup=4)
    schedule = Schedule(kind="cosine", floor=0.1)
    assert learning_rate(step, rate, schedule, steps=20) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(1, 0.5), (2, 1.0), (3, 1.0), (14, 1.0), (17, 0.55), (20, 0.1)],  # holds to 0.7 * 20, then 0.15 a step
)
def test_linear_holds_the_peak_and_falls_in_a_straight_line(step, expected):
    schedule = Schedule(kind="linear", hold=0.7, floor=0.1)
    assert learning_rate(step, Rate(lr=1.0, warmup=2), schedule, steps=20) == pytest.approx(expected)


def test_a_warm_up_longer_than_the_run_only_rises():
    rates = [learning_rate(step, Rate(lr=1.0, warmup=10), Schedule(), steps=4) for step in range(1, 5)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_no_warm_up_starts_at_the_peak_and_a_hold_of_one_stays_there():
    rates = [learning_rate(step, Rate(lr=1.0, warmup=0), Schedule(hold=1.0), steps=3) for step in range(1, 4)]
    assert rates == [1.0, 1.0, 1.0]


def make(toy, tmp_path, model=None, **optimizer):
    model = model or toy.Toy()
    rates = {
        name: {"lr": lr, "warmup": 0}
        for name, lr in (("vision", 1e-3), ("connector", 2e-3), ("language", 3e-3))
    }
    return model, Optimizers(model, toy.recipe(tmp_path, optimizer={"weight_decay": 0.1} | rates | optimizer))


def state_groups(optimizers, name):
    return optimizers._optimizers[name].param_groups


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_exactly_one_group(toy, tmp_path, name):
    model, optimizers = make(toy, tmp_path, name=name)
    found = [id(parameter) for parameter in optimizers.parameters]
    assert sorted(found) == sorted(map(id, model.parameters()))


def test_vectors_are_not_decayed_and_each_group_has_its_rate(toy, tmp_path):
    model, optimizers = make(toy, tmp_path)
    decay = {id(p): g["weight_decay"] for g in state_groups(optimizers, "adamw") for p in g["params"]}
    assert decay[id(model.vision.bias)] == 0.0
    assert decay[id(model.vision.weight)] == decay[id(model.embed.weight)] == 0.1
    assert optimizers.rates(6) == pytest.approx({"vision": 1e-4, "connector": 2e-4, "language": 3e-4})


def test_muon_takes_the_matrices_but_not_embedding_head_or_tables(toy, tmp_path):
    model = toy.Toy()
    model.table = nn.Parameter(torch.zeros(4, 4))
    groups = toy.Toy.parameter_groups
    model.parameter_groups = lambda: groups(model) | {"language": [*groups(model)["language"], model.table]}
    _, optimizers = make(toy, tmp_path, model=model, name="muon", muon={"lr": 0.5})
    taken = [p for group in state_groups(optimizers, "muon") for p in group["params"]]
    assert [id(p) for p in taken] == [id(model.vision.weight), id(model.connector.weight)]
    assert optimizers.rates(1)["vision.muon"] > 0.4  # its own rate, with the group's warm-up


def test_a_head_tied_to_the_embedding_is_no_matrix_for_muon():
    model = nn.Module()
    model.embed, model.out = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
    model.out.weight = model.embed.weight
    assert linear_matrices(model) == set()


def test_one_step_of_adamw_is_the_formula_with_decoupled_decay(toy, tmp_path):
    """First step: the moments are g and g^2, so the update is lr (sign g + decay w), up to eps."""
    model, optimizers = make(toy, tmp_path, eps=1e-12)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers.zero_grad()
    for parameter in model.parameters():
        parameter.grad.fill_(0.3)
    optimizers.step(1)
    rate = optimizers.rates(1)["vision"]
    expected = before["vision.weight"] - rate * (1.0 + 0.1 * before["vision.weight"])
    torch.testing.assert_close(model.vision.weight.detach(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.vision.bias.detach(), before["vision.bias"] - rate, rtol=1e-5, atol=1e-7)


def test_a_rate_of_zero_freezes_a_group(toy, tmp_path):
    model, optimizers = make(toy, tmp_path, vision={"lr": 0.0})
    assert not model.vision.weight.requires_grad
    assert "vision" not in optimizers.rates(1)
    assert id(model.vision.weight) not in map(id, optimizers.parameters)


def test_rates_that_are_all_zero_are_refused_by_name(toy, tmp_path):
    rates = {name: {"lr": 0.0} for name in ("vision", "connector", "language")}
    with pytest.raises(RecipeError, match=r"nothing would be trained: .*optimizer\.language\.lr.* are 0"):
        make(toy, tmp_path, **rates)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_restores_exactly(toy, tmp_path, name):
    def step(model, optimizers, number):
        optimizers.zero_grad()
        for place, parameter in enumerate(model.parameters()):
            parameter.grad.copy_(torch.cos(parameter.detach() + place + number))
        optimizers.step(number)

    model, optimizers = make(toy, tmp_path, name=name)
    step(model, optimizers, 1)
    weights, state = model.state_dict(), optimizers.state_dict()
    torch.save((weights, state), tmp_path / "state.pt")
    step(model, optimizers, 2)
    other, restored = make(toy, tmp_path, name=name, model=toy.Toy(seed=9))
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(weights)
    restored.load_state_dict(state)
    step(other, restored, 2)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_groups_that_miss_or_repeat_a_parameter_are_refused(toy, tmp_path):
    model = toy.Toy()
    model.parameter_groups = lambda: {"language": [model.embed.weight, model.embed.weight]}
    with pytest.raises(ValueError, match=r"missing \['connector.bias', .*twice \['embed.weight'\]"):
        make(toy, tmp_path, model=model)


def test_half_precision_weights_are_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="bfloat16; train fp32 weights"):
        make(toy, tmp_path, model=toy.Toy(dtype=torch.bfloat16))
