"""The contract between data and model: Sample, Sequence, Row, Budget, Cost, Costs.

Letters used for shapes, here and everywhere: N tokens, M supervised targets, V visual slots, S samples, C
crops, H and W pixels of a crop, K patches of a pooling window, G grids, I images. Arrays are numpy in the
data path; `Row.to` makes them tensors, field by field.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Listing
from typing import Any, TypeVar, overload

import numpy as np

from hedgerow.errors import BudgetError, RecipeError

Array = Any  # numpy in the data path, torch after `Row.to`; shapes and dtypes stand beside each field
_A = TypeVar("_A", bound="Amounts")


class Amounts(Mapping[str, int]):
    """Named whole amounts, such as `tokens=900, crops=8`. Immutable; a name that is missing counts as 0."""

    __slots__ = ("_items",)

    def __init__(self, **amounts: int) -> None:
        for name, amount in amounts.items():
            if int(amount) != amount or amount < 0:
                raise ValueError(f"{name}={amount}: give a whole amount that is not negative")
        self._items = {name: int(amount) for name, amount in amounts.items()}

    def __getitem__(self, name: str) -> int:
        return self._items[name]

    @overload  # type: ignore[override]  # amounts only
    def get(self, name: str, default: None = None, /) -> int | None: ...
    @overload
    def get(self, name: str, default: int, /) -> int: ...
    def get(self, name: str, default: int | None = None, /) -> int | None:
        """Return an amount, or what is given instead; packers ask a hundred thousand times a second."""
        return self._items.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __add__(self: _A, other: Mapping[str, int]) -> _A:
        names = dict.fromkeys([*self, *other])
        return type(self)(**{name: self.get(name, 0) + other.get(name, 0) for name in names})

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={amount}" for name, amount in self._items.items())
        return f"{type(self).__name__}({inside})"


class Cost(Amounts):
    """What an example takes of each budget."""

    __slots__ = ()


class Budget(Amounts):
    """The most a row may hold of each cost; its names are what is counted.

    Example:
        >>> Budget(tokens=16384, crops=128).fits(Cost(tokens=900, crops=8))
        True
    """

    __slots__ = ()

    def fits(self, cost: Mapping[str, int]) -> bool:
        """Say whether a cost stays within every budget."""
        return all(cost.get(name, 0) <= most for name, most in self.items())

    def excess(self, cost: Mapping[str, int]) -> str:
        """Name what is too much, such as `tokens 20000 > 16384`; empty when it fits."""
        over = [
            f"{name} {cost.get(name, 0)} > {most}" for name, most in self.items() if cost.get(name, 0) > most
        ]
        return ", ".join(over)


class Costs(Listing[Cost]):
    """The costs of many examples as one table, a sequence of `Cost`. Immutable.

    Args:
        names: what is counted, one name a column.
        table: int64 [n, names], not negative.
    """

    __slots__ = ("_table", "names")

    def __init__(self, names: Listing[str], table: Array) -> None:
        table = np.array(table, np.int64, ndmin=2)
        if table.shape[1:] != (len(names),) or (table < 0).any():
            raise ValueError(f"a table {table.shape} for {len(names)} names: give [n, names], none negative")
        table.flags.writeable = False
        self.names = tuple(names)
        self._table = table

    @classmethod
    def of(cls, costs: Iterable[Mapping[str, int]]) -> "Costs":
        """Make the table of costs; a name that one of them lacks counts as 0."""
        if isinstance(costs, Costs):
            return costs
        costs = list(costs)
        names = list(dict.fromkeys(name for cost in costs for name in cost))
        table = [[cost.get(name, 0) for name in names] for cost in costs]
        return cls(names, np.array(table, np.int64).reshape(len(costs), len(names)))

    def amounts(self, *names: str) -> Array:
        """Return columns, int64 [n, names]; one that is not in the table is 0."""
        missing = np.zeros(len(self), np.int64)
        columns = [self._table[:, self.names.index(n)] if n in self.names else missing for n in names]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self), 0), np.int64)

    def take(self, indices: Array) -> "Costs":
        """Return the costs at these places, in this order."""
        return Costs(self.names, self._table[np.asarray(indices, np.int64)])

    def total(self) -> Cost:
        """Return the sum over all examples."""
        return Cost(**dict(zip(self.names, map(int, self._table.sum(axis=0)), strict=True)))

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> Cost: ...
    @overload
    def __getitem__(self, index: slice) -> "Costs": ...
    def __getitem__(self, index: int | slice) -> "Cost | Costs":
        if isinstance(index, slice):
            return Costs(self.names, self._table[index])
        return Cost(**dict(zip(self.names, self._table[index].tolist(), strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Costs) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Costs of {len(self):,} examples, {self.total()!r} in all"


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The supervised targets of one node of a tree.

    `example` and `branch` say which node (branch "" is the root, "1.0" the first child of the second
    branch), `source` the data set. `n` is the number of answer tokens without end-of-turn tokens, `weight`
    the loss weight of one of them before message and part weights. `pair` groups ranked answers to one
    question (-1: none), `rank` 0 is best.
    """

    example: str
    branch: str
    source: str
    task: str
    n: int
    weight: float
    pair: int = -1
    rank: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class VisionInput:
    """What the vision tower receives.

    `crops` uint8 [C, H, W, 3]; or [C, 3 * T * H * W] where media are cut into patches at their own size: each
    crop is one patch of T frames, flat as the tower reads it, and `patches` is 1. `pooling` int32 [V, K]
    indexes the patches of all crops in a row (crop 0 first, -1 is no patch) that make the feature of each
    slot; `grids` int32 [G, 3] frames, rows and columns of slots of each view, in slot order; `patches` is the
    number of patches of one crop.

    Where the tower must be told more, `images` int32 [I, 5] holds of each image, a frame counted as one, its
    crops, its slots, its height and width in pixels before anything was done to it, and which of its crops
    shows all of it (from 0; -1 none); and `levels` float32 [3, 256] what the tower reads for each value of a
    channel of the crops. None elsewhere.
    """

    crops: Array
    pooling: Array
    grids: Array
    patches: int
    images: Array | None = None
    levels: Array | None = None

    @staticmethod
    def join(inputs: Listing["VisionInput"]) -> "VisionInput | None":
        """Put inputs one after another; None for none. Windows are widened with -1 to the widest.

        Raises:
            RecipeError: their crops differ in shape, patches or levels.
        """
        if not inputs:
            return None
        _check_alike("one number of patches", {item.patches for item in inputs})
        _check_alike("one shape", {item.crops.shape[1:] for item in inputs})
        _check_alike("one table of levels", {_digits(item.levels) for item in inputs})
        width = max(item.pooling.shape[1] for item in inputs)
        images = [item.images for item in inputs if item.images is not None]
        start, tables = 0, []
        for item in inputs:
            moved = np.where(item.pooling < 0, -1, item.pooling + start)
            tables.append(np.pad(moved, ((0, 0), (0, width - moved.shape[1])), constant_values=-1))
            start += len(item.crops) * item.patches
        return VisionInput(
            crops=np.concatenate([item.crops for item in inputs]),
            pooling=np.concatenate(tables).astype(np.int32),
            grids=np.concatenate([item.grids for item in inputs]),
            patches=inputs[0].patches,
            images=np.concatenate(images) if images else None,
            levels=inputs[0].levels,
        )


def _check_alike(what: str, found: set[Any]) -> None:
    if len(found) > 1:
        raise RecipeError(
            f"crops of one row must have {what}, got {sorted(map(str, found))}; give images and videos the "
            "same settings"
        )


def _digits(levels: Array | None) -> str:
    return "none" if levels is None else f"content {zlib.crc32(levels.tobytes()):08x}"


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks:
    """Which key blocks each block of queries sees, n x n blocks; for block-sparse attention kernels.

    Blocks are over physical positions. Columns after the first `count` of an index are the other blocks.

    | field | dtype, shape | meaning |
    |---|---|---|
    | size | int | positions of a block; n = ceil(N / size) |
    | kv_count | int32 [n] | how many key blocks are seen in part |
    | kv_index | int32 [n, n] | those, ascending |
    | full_count | int32 [n] | how many key blocks are seen whole |
    | full_index | int32 [n, n] | those, ascending |
    """

    size: int
    kv_count: Array
    kv_index: Array
    full_count: Array
    full_index: Array


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Sequence:
    """One encoded tree.

    | field | dtype, shape | meaning |
    |---|---|---|
    | example | str | id of the tree |
    | tokens | int32 [N] | token ids in physical order |
    | position | int32 [N] or [3, N] | rotary position; a node goes on after its parent, a tree starts at 0 |
    | order | int32 [N] | logical place: depth-first order of the tree |
    | end | int32 [N] | first logical place after the subtree of the token's node |
    | group | int32 [N] | bidirectional group, -1 where causal |
    | slot | int32 [V] | physical positions that receive visual features, strictly increasing |
    | source, target | int32 [M] | physical position whose hidden state predicts; token to predict |
    | weight | float32 [M] | loss weight |
    | reference | float32 [M] or None | log-probability under a reference model |
    | sample | int32 [M] | which sample the target belongs to |
    | samples | Sample [S] | |
    | vision | VisionInput or None | |
    | cost | Cost | what it takes of each budget |
    """

    example: str
    tokens: Array
    position: Array
    order: Array
    end: Array
    group: Array
    slot: Array
    source: Array
    target: Array
    weight: Array
    sample: Array
    samples: tuple[Sample, ...]
    cost: Cost
    vision: VisionInput | None = None
    reference: Array | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        names = ", ".join(f"{sample.task} x{sample.n}" for sample in self.samples)
        return f"{self.example}: {_amounts(self.cost)}, {len(self.target)} targets ({names})"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Row:
    """Sequences packed side by side; fields as in `Sequence`, `examples` and `lengths` tell them apart.

    `blocks` is None until `hedgerow.visibility.summary` made it, in the data worker.
    """

    examples: tuple[str, ...]
    lengths: tuple[int, ...]
    tokens: Array
    position: Array
    order: Array
    end: Array
    group: Array
    slot: Array
    source: Array
    target: Array
    weight: Array
    sample: Array
    samples: tuple[Sample, ...]
    cost: Cost
    budget: Budget
    vision: VisionInput | None = None
    reference: Array | None = None
    blocks: Blocks | None = None

    @classmethod
    def join(cls, sequences: Listing[Sequence], budget: Budget, *, pad: bool = False) -> "Row":
        """Pack sequences into one row, in the given order.

        Args:
            sequences: at least one.
            budget: the most the row may hold.
            pad: fill up to `budget["tokens"]` with tokens that see only themselves and train nothing.

        Raises:
            BudgetError: together they hold more than the budget; the message names the excess.
        """
        cost = sum((item.cost for item in sequences), Cost())
        if not budget.fits(cost):
            names = ", ".join(item.example for item in sequences)
            raise BudgetError(f"row of {names}: {budget.excess(cost)}; pack fewer or raise the budget")
        lengths = tuple(len(item) for item in sequences)
        starts = np.cumsum((0, *lengths[:-1]))
        filler = max(budget["tokens"] - sum(lengths), 0) if pad else 0
        visions = [item.vision for item in sequences if item.vision is not None]
        return cls(
            examples=tuple(item.example for item in sequences),
            lengths=lengths,
            samples=tuple(sample for item in sequences for sample in item.samples),
            cost=cost,
            budget=budget,
            vision=VisionInput.join(visions),
            reference=_join_reference(sequences),
            **_join_tokens(sequences, starts, filler),
            **_join_targets(sequences, starts),
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: Any) -> "Row":
        """Return the row with torch tensors on a device: indices int64, weights float32, crops uint8.

        Blocks stay int32.
        """
        import torch

        def moved(array: Array) -> Array:
            if array is None:
                return None
            tensor = torch.as_tensor(array)
            tensor = tensor.long() if tensor.dtype == torch.int32 else tensor
            return tensor.to(device, non_blocking=True)

        row = _map_arrays(self, moved)
        small = _map_blocks(self.blocks, lambda array: torch.as_tensor(array).to(device, non_blocking=True))
        return dataclasses.replace(row, blocks=small)

    def pin_memory(self) -> "Row":
        """Return the row with tensors in pinned memory; `torch.utils.data.DataLoader` calls it."""
        row = _map_arrays(self.to("cpu"), lambda array: None if array is None else array.pin_memory())
        return dataclasses.replace(row, blocks=_map_blocks(row.blocks, lambda array: array.pin_memory()))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; vision becomes `vision_crops`, `vision_pooling` and so on.

        In the same way blocks become `blocks_kv_count` and so on.
        """
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        vision, blocks = found.pop("vision"), found.pop("blocks")
        if vision is not None:
            found |= {f"vision_{name}": getattr(vision, name) for name in _VISION_ARRAYS}
        if blocks is not None:
            found |= {f"blocks_{name}": getattr(blocks, name) for name in _BLOCK_ARRAYS}
        return found

    def __repr__(self) -> str:
        lines = [
            f"Row of {len(self.lengths)} trees: {_fill(self.cost, self.budget)}, {len(self.target)} targets"
        ]
        source, sample = (np.array(array.tolist(), np.int64) for array in (self.source, self.sample))
        start = 0
        for number, (example, length) in enumerate(zip(self.examples, self.lengths, strict=True)):
            own = np.unique(sample[(source >= start) & (source < start + length)])
            tasks = ", ".join(f"{self.samples[place].task} x{self.samples[place].n}" for place in own)
            mark = "└─" if number == len(self.lengths) - 1 else "├─"
            lines.append(f"{mark} {example}: {length} tokens ({tasks or 'no targets'})")
            start += length
        return "\n".join(lines)


_ARRAYS = (
    "tokens", "position", "order", "end", "group", "slot",
    "source", "target", "weight", "sample", "reference",
)  # fmt: skip
_VISION_ARRAYS = ("crops", "pooling", "grids", "images", "levels")
_BLOCK_ARRAYS = ("kv_count", "kv_index", "full_count", "full_index")


def _map_arrays(row: Row, change: Any) -> Row:
    vision = row.vision
    if vision is not None:
        vision = dataclasses.replace(
            vision, **{name: change(getattr(vision, name)) for name in _VISION_ARRAYS}
        )
    return dataclasses.replace(row, vision=vision, **{name: change(getattr(row, name)) for name in _ARRAYS})


def _map_blocks(blocks: Blocks | None, change: Any) -> Blocks | None:
    if blocks is None:
        return None
    return dataclasses.replace(blocks, **{name: change(getattr(blocks, name)) for name in _BLOCK_ARRAYS})


def _join_tokens(sequences: Listing[Sequence], starts: Array, filler: int) -> dict[str, Array]:
    axes = sequences[0].position.ndim
    own = np.arange(filler, dtype=np.int32) + sum(len(item) for item in sequences)
    groups = np.cumsum([0, *(int(item.group.max(initial=-1)) + 1 for item in sequences[:-1])])
    empty = np.zeros((3, filler) if axes == 2 else filler, np.int32)
    order = [item.order + start for item, start in zip(sequences, starts, strict=True)]
    end = [item.end + start for item, start in zip(sequences, starts, strict=True)]
    group = [np.where(item.group < 0, -1, item.group + g) for item, g in zip(sequences, groups, strict=True)]
    return {
        "tokens": _cat([*(item.tokens for item in sequences), np.zeros(filler, np.int32)]),
        "position": np.concatenate([*(item.position for item in sequences), empty], axis=-1).astype(np.int32),
        "order": _cat([*order, own]),
        "end": _cat([*end, own + 1]),
        "group": _cat([*group, np.full(filler, -1)]),
    }


def _join_targets(sequences: Listing[Sequence], starts: Array) -> dict[str, Array]:
    samples = np.cumsum([0, *(len(item.samples) for item in sequences[:-1])])
    return {
        "slot": _cat([item.slot + start for item, start in zip(sequences, starts, strict=True)]),
        "source": _cat([item.source + start for item, start in zip(sequences, starts, strict=True)]),
        "target": _cat([item.target for item in sequences]),
        "weight": np.concatenate([item.weight for item in sequences]).astype(np.float32),
        "sample": _cat([item.sample + start for item, start in zip(sequences, samples, strict=True)]),
    }


def _join_reference(sequences: Listing[Sequence]) -> Array | None:
    known = [item.reference for item in sequences]
    if all(item is None for item in known):
        return None
    # A sequence without reference values brings NaN, so that a loss that needs them cannot use them unseen.
    filled = [
        np.full(len(item.target), np.nan) if item.reference is None else item.reference for item in sequences
    ]
    return np.concatenate(filled).astype(np.float32)


def _cat(arrays: Listing[Array]) -> Array:
    return np.concatenate(arrays).astype(np.int32)


def _amounts(cost: Cost) -> str:
    return ", ".join(f"{amount:,} {name}" for name, amount in cost.items())


def _fill(cost: Cost, budget: Budget) -> str:
    shown = []
    for name, most in budget.items():
        share = f" ({cost.get(name, 0) / most:.0%})" if most else ""
        shown.append(f"{cost.get(name, 0):,} of {most:,} {name}{share}")
    return ", ".join(shown)
