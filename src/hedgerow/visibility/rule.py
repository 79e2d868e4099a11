"""The rule written out: a mask of all N x N pairs."""

from hedgerow.sequence import Array


def dense(
    order: Array, end: Array, group: Array, *, position: Array | None = None, window: int | None = None
) -> Array:
    """Return the mask bool [N, N] (query, key): the reference; nothing else makes an N x N array.

    Args:
        order: logical place of each token.
        end: first logical place after the subtree of each token's node.
        group: bidirectional group, -1 where causal.
        position: rotary position, needed with a window.
        window: how many positions back a query may look, itself included.

    Raises:
        ValueError: a window without positions.
    """
    causal = (order[None, :] <= order[:, None]) & (order[:, None] < end[None, :])
    mask = causal | ((group[:, None] == group[None, :]) & (group[:, None] >= 0))
    if window is None:
        return mask
    if position is None:
        raise ValueError("a window needs the positions; pass position=")
    return mask & (position[:, None] - position[None, :] < window)
