"""Who may attend to whom: the one rule from which masks, blocks, pair counts and FLOPs derive.

    visible(q, k) = ( order[k] <= order[q] < end[k]   or   group[q] == group[k] >= 0 )
                    and, in a layer with window w,  position[q] - position[k] < w

`order`, `end`, `group`, `position` are integer arrays [N] as in `hedgerow.sequence.Row`. In depth-first
order every node is contiguous, so the first clause is causality, ancestry at any depth and the isolation of
packed trees at once. A *path* is a token with all that the first clause shows it: its node up to itself and
every ancestor. Tokens may stand in any physical order; blocks and intervals are over physical positions.
"""

from hedgerow.visibility.blockwise import blocks, sort_blocks, summary
from hedgerow.visibility.closure import reach
from hedgerow.visibility.counts import pairs, tree_pairs, visible
from hedgerow.visibility.ranges import intervals
from hedgerow.visibility.rule import dense

__all__ = [
    "blocks", "dense", "intervals", "pairs", "reach", "sort_blocks", "summary", "tree_pairs", "visible",
]  # fmt: skip
