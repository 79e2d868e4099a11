"""The FLOP model: the published figures of an 8B row, and costs as a table."""

import numpy as np
import pytest

from hedgerow.flops import MOLMO2_8B, FlopModel
from hedgerow.sequence import Cost, Costs


def test_flops_are_linear_in_tokens_pairs_and_crops():
    model = FlopModel("toy", token=2.0, pair=3.0, crop=5.0)
    assert model([Cost(tokens=10, pairs=4, crops=1)]).tolist() == [20.0 + 12.0 + 5.0]
    assert model([Cost(tokens=10, crops=1)]).tolist() == [20.0 + 3.0 * 55 + 5.0]  # causal where none is named


def test_an_8b_row_takes_what_its_parameters_say():
    tokens, crop = MOLMO2_8B([Cost(tokens=16384), Cost(crops=1)])
    assert tokens == pytest.approx(6 * 6.95e9 * 16384 + 14 * 128 * 32 * 36 * 16384 * 16385 / 2)
    # So400m/14 at 378 pixels: about 380 M parameters in 25 layers see 729 patches, forward and backward
    assert crop == pytest.approx(6 * 380e6 * 729, rel=0.2)


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
