"""What a GPU must hold to train a Molmo2 as this trainer does, by formula.

Weights are fp32 and whole on every process, and so are gradients and AdamW's two moments of what is trained:
16 bytes a parameter, for there is no sharding; what is frozen takes 4. The rest depends on the row. Letters:
N tokens, C crops of P patches, V slots of K patches, D width of the language model, Q and J channels of its
query and key heads, F of its MLP, W and G width and MLP of the vision tower; b bytes of what is computed in,
2 for bf16, with which linear layers copy what they read.
"""

import dataclasses
from dataclasses import dataclass

from hedgerow.flops import Sizes
from hedgerow.models.sizes import Parameters

FULL = 4  # bytes of fp32, in which weights, gradients, moments and the residual stream are


@dataclass(frozen=True, slots=True)
class Trained:
    """What of a model is trained: parts that are `whole`, parts that are `adapted`, and their adapters.

    `adapters` counts the parameters of all adapters.
    """

    whole: frozenset[str]
    adapted: frozenset[str] = frozenset()
    adapters: int = 0

    def parameters(self, given: Parameters) -> int:
        """How many parameters have a gradient."""
        return self.adapters + sum(int(getattr(given, part)) for part in self.whole)


@dataclass(frozen=True, slots=True)
class Load:
    """What a process holds of a row: tokens, crops, slots, and patches of the widest pooling window."""

    tokens: int
    crops: int
    slots: int
    window: int

    @classmethod
    def of_frames(cls, sizes: Sizes, *, tokens: int, crops: int) -> "Load":
        """Take all crops to be frames of videos."""
        return cls(tokens, crops, crops * sizes.slots, sizes.patches // sizes.slots)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes a process holds at most.

    | field | of what |
    |---|---|
    | weights | the whole model and its adapters, fp32 |
    | gradients, moments | what is trained, fp32 |
    | vision, connector, language | the activations of a row that stay until the backward pass |
    | layer | what the backward pass of the largest layer adds, its low-precision weights included |
    | loss | what the loss adds: a chunk of logits, the head's gradient, low-precision copies of weights |
    """

    weights: int
    gradients: int
    moments: int
    vision: int
    connector: int
    language: int
    layer: int
    loss: int

    @property
    def states(self) -> int:
        """What is held whatever the row."""
        return self.weights + self.gradients + self.moments

    @property
    def kept(self) -> int:
        """Activations that stay until the backward pass."""
        return self.vision + self.connector + self.language

    @property
    def peak(self) -> int:
        """The most at a time: the loss and the layers are not computed at once."""
        return self.states + self.kept + max(self.layer, self.loss)

    def to_dict(self) -> dict[str, int]:
        """Return all bytes by name."""
        sums = {"states": self.states, "kept": self.kept, "peak": self.peak}
        return dataclasses.asdict(self) | sums


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes of a row that are saved for the backward pass, counted from the modules of `transformers`.

    Args:
        sizes: of the model.
        width: b.
        norm_after: whether norms follow their layers, as in OLMo.
        recompute: whether layers are run again in the backward pass (gradient checkpointing).
    """

    sizes: Sizes
    width: int
    norm_after: bool
    recompute: bool

    def vision(self, load: Load) -> int:
        """Pixels of all patches, and of each layer its input: C P (3 p^2 + layers W) b; or all of it."""
        one = self.sizes
        pixels = load.crops * one.patches * one.patch * self.width
        if not self.recompute:
            return pixels + one.vision_layers * self.tower_layer(load)
        return pixels + load.crops * one.patches * one.vision_layers * one.vision_hidden * self.width

    def connector(self, load: Load) -> int:
        """Windows, their keys, values and queries, and the projector: V b (2 W (2 K + ...) + ... + 4 F).

        It is not checkpointed. With m joined layers: windows m K W, keys and values 2 K W, the query's input
        m W, query, output and projected output 3 W, gate, activated gate, other half and product 4 F.
        """
        one = self.sizes
        wide = one.joined * (load.window + 1) + 2 * load.window + 3
        sums = one.vision_heads * FULL + load.window * 8 + 1  # of the softmax; which patches, and whether any
        counts = (load.window + 1) * self.width
        return load.slots * ((wide * one.vision_hidden + 4 * one.mlp) * self.width + sums + counts)

    def language(self, load: Load) -> int:
        """The input of each layer and of the last norm, and its output: N D (layers + 2) 4; or all of it."""
        one = self.sizes
        last = load.tokens * (2 * one.hidden * FULL + FULL + 8)  # with the norm's scale, and the token itself
        if not self.recompute:
            return last + one.layers * self.decoder_layer(load)
        return last + load.tokens * one.layers * one.hidden * FULL

    def tower_layer(self, load: Load) -> int:
        """One layer of the vision tower: C P (8 W + 2 G) b."""
        one = self.sizes
        wide = (8 * one.vision_hidden + 2 * one.vision_mlp) * self.width
        return load.crops * one.patches * (wide + (one.vision_heads + 4) * FULL)

    def decoder_layer(self, load: Load) -> int:
        """One layer of the language model.

        In fp32 4 N (6 D + 4 Q + 4 J + 4 F). In bf16 what linear layers read is copied for each of them: 2 N
        (5 D + Q + 4 F); norms keep fp32, 16 D, or 12 D behind their layers; queries and keys 14 Q + 12 J.
        """
        one = self.sizes
        d, q, j, f = one.hidden, one.queries, one.keys, one.mlp
        if self.width == FULL:
            wide = FULL * (6 * d + 4 * q + 4 * j + 4 * f)
        else:
            wide = 2 * (5 * d + q + 4 * f) + (12 if self.norm_after else 16) * d + 14 * q + 12 * j
        norms = 4 if self.norm_after else 2 + one.heads + one.kv_heads
        return load.tokens * (wide + FULL * (norms + one.heads))


def memory_of(
    saved: Activations, parameters: Parameters, load: Load, *, trained: Trained, chunk: int
) -> Memory:
    """Return what a process holds.

    A part keeps activations if it is trained, or one is whose output it reads; the language model always.
    Autocast keeps low-precision copies of weights that need a gradient; those of others it makes for each
    layer, and the graph holds them only where layers are not run again.

    Args:
        saved: of the model.
        parameters: of it.
        load: what it holds of a row.
        trained: what is not frozen.
        chunk: positions for which logits exist at once.
    """
    sizes = saved.sizes
    copies = saved.width if saved.width < FULL else 0  # of a parameter, where weights are copied to compute
    tower, decoder = sizes.tower // sizes.vision_layers, sizes.decoder // sizes.layers
    reached, count = trained.whole | trained.adapted, trained.parameters(parameters)
    sees, joins, speaks = "vision" in reached, bool(reached - {"language"}), "language" in trained.whole
    tower_layer = saved.tower_layer(load) + copies * tower if sees else 0
    layers = (tower_layer, saved.decoder_layer(load) + copies * decoder)
    logits = chunk * sizes.vocabulary * (FULL + copies)
    copied = parameters.total + trained.adapters - parameters.embedding
    if saved.recompute:
        copied = count - parameters.embedding if speaks else count + parameters.head
    return Memory(
        weights=FULL * (parameters.total + trained.adapters),
        gradients=FULL * count,
        moments=2 * FULL * count,
        vision=saved.vision(load) if sees else 0,
        connector=saved.connector(load) if joins else 0,
        language=saved.language(load),
        layer=max(layers) if saved.recompute else 0,
        loss=logits + (FULL * parameters.head if speaks else 0) + copies * copied,
    )
