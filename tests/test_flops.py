"""The FLOP model: the published figures of an 8B row, and costs as a table."""

import numpy as np
import pytest

from hedgerow.flops import MOLMO2_8B, PUBLISHED, FlopModel
from hedgerow.sequence import Cost, Costs


def test_flops_are_linear_in_tokens_pairs_and_crops():
    model = FlopModel("toy", token=2.0, pair=3.0, crop=5.0)
    assert model([Cost(tokens=10, pairs=4, crops=1)]).tolist() == [20.0 + 12.0 + 5.0]
    assert model([Cost(tokens=10, crops=1)]).tolist() == [20.0 + 3.0 * 55 + 5.0]  # causal where none is named


def test_an_8b_row_takes_what_its_parameters_say():
    tokens, crop = MOLMO2_8B([Cost(tokens=16384), Cost(crops=1)])
    pairs = 14 * 128 * 32 * 36 * 16384 * 16385 / 2
    assert tokens == pytest.approx(6 * 6.95e9 * 16384 + pairs, rel=1e-3)
    # So400m/14 at 378 pixels: about 380 M parameters in 25 layers see 729 patches, forward and backward
    assert crop == pytest.approx(6 * 380e6 * 729, rel=0.2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_decoders_are_as_large_as_published_models_without_embeddings(name):
    known = {"4B": 3.63e9, "8B": 6.95e9, "O-7B": 6.48e9}
    assert PUBLISHED[name].decoder == pytest.approx(known[name], rel=0.005)


def test_running_forward_twice_takes_a_third_more_in_matrices():
    once, twice = (FlopModel.of("8B", PUBLISHED["8B"], recompute=again) for again in (False, True))
    assert twice.token / once.token == pytest.approx(8 / 6)
    assert twice.pair / once.pair == pytest.approx(18 / 14)
    assert 1 < twice.crop / once.crop < 8 / 6, "the connector runs once"
    assert twice.target == once.target == 6 * 4096 * 151936


def test_targets_are_counted_where_a_cost_names_them():
    model = FlopModel("toy", token=2.0, pair=0.0, crop=0.0, target=7.0)
    assert model([Cost(tokens=10, targets=3)]).tolist() == [41.0]


def test_a_table_of_costs_reads_as_the_costs_themselves():
    costs = [Cost(tokens=3, crops=1), Cost(tokens=5)]
    table = Costs.of(costs)
    assert [dict(cost) for cost in table] == [{"tokens": 3, "crops": 1}, {"tokens": 5, "crops": 0}]
    assert table.amounts("crops", "audio").tolist() == [[1, 0], [0, 0]]
    assert table.take(np.array([1, 1])).total() == Cost(tokens=10, crops=0)
    assert len(table[1:]) == 1
    assert Costs.of(table) is table
    assert Costs.of([]).total() == Cost()
    with pytest.raises(ValueError, match="none negative"):
        Costs(("tokens",), [[-1]])
