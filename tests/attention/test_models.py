"""Language models of `transformers` on packed trees, tiny and random, against plain runs of conversations."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    Olmo3Config,
    Olmo3Model,
    Qwen3Config,
    Qwen3Model,
)
from transformers.models.molmo2.configuration_molmo2 import Molmo2TextConfig
from transformers.models.molmo2.modeling_molmo2 import Molmo2TextModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from hedgerow.attention import Visibility, adopt, choose
from hedgerow.attention.register import trains_on
from hedgerow.linearize import linearize
from hedgerow.testing import Forest

CPU = torch.device("cpu")
WINDOW = 3
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SLIDING = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
AXES = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
MODELS = {
    "molmo2": lambda: (Molmo2TextModel, Molmo2TextConfig(**SIZES)),
    "qwen3": lambda: (Qwen3Model, Qwen3Config(**SIZES)),
    "llama": lambda: (LlamaModel, LlamaConfig(**SIZES)),
    "olmo3": lambda: (Olmo3Model, Olmo3Config(**SIZES, **SLIDING)),
    # A scale of its own, and a soft cap that its code does not apply.
    "gemma3": lambda: (
        Gemma3TextModel,
        Gemma3TextConfig(**SIZES, **SLIDING, query_pre_attn_scalar=24, attn_logit_softcapping=3.0),
    ),
    "qwen3_vl": lambda: (Qwen3VLTextModel, Qwen3VLTextConfig(**SIZES, **AXES)),
}
EACH = pytest.mark.parametrize("name", trains_on(CPU))
EVERY = pytest.mark.parametrize("model", MODELS)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Two packed trees in a random physical order, with what the models read of each token."""

    forest: Forest
    tokens: torch.Tensor
    position: torch.Tensor  # [3, N]; only the first axis but for Qwen3-VL
    deep: torch.Tensor  # [2, N, 32], added to visual tokens after the first two layers of Qwen3-VL

    @property
    def nodes(self):
        return range(len(self.forest.parents))

    def conversation(self, node):
        """The tokens of a node and its path, in the order in which they read."""
        path = np.flatnonzero(np.isin(self.forest.owner, self.forest.path(node)))
        return path[np.argsort(self.forest.order[path])]

    def inputs(self, model, where):
        """What a forward of these tokens gets beside the attention."""
        given = {"input_ids": self.tokens[where][None], "position_ids": self.position[:1, where]}
        visual = torch.from_numpy(self.forest.group[where] >= 0)
        if isinstance(model, Qwen3VLTextModel):
            given["position_ids"] = self.position[:, None, where]
            given["visual_pos_masks"] = visual[None]
            given["deepstack_visual_embeds"] = [deep[where][visual] for deep in self.deep]
        return given | {"use_cache": False}


def draw(*, groups=True, seed=0):
    """Branches of at least four windows, nested ones too; media at the root and, in one, in a later turn."""
    rng = np.random.default_rng(seed)
    parents = [-1, 0, 0, 2, 2, -1, 5, 5]
    lengths = [14, 13, 15, 12, 16, 9, 12, 13]
    order, position, end, starts = linearize([-1, 0, 0, 2, 2], lengths[:5])
    other = linearize([-1, 0, 0], lengths[5:])
    size = len(order)
    order, end = np.r_[order, other.order + size], np.r_[end, other.end + size]
    position = np.r_[position, other.position]
    group = np.full(len(order), -1, np.int32)
    for number, (start, stop) in enumerate([(2, 9), (starts[2] + 5, starts[2] + 11), (size, size + 6)]):
        group[start:stop] = number if groups else -1
        group[start + 3] = -1  # a timestamp
    axes = np.stack([position, position + (group >= 0) * 2, position + (group >= 0) * 3])
    forest = Forest(
        tuple(parents), np.repeat(np.arange(8), lengths), order.astype(np.int32), end.astype(np.int32), group,
        position.astype(np.int32), group < 0,
    )  # fmt: skip
    where = rng.permutation(len(forest))
    random = torch.Generator().manual_seed(seed)
    return Drawn(
        forest.take(where),
        torch.randint(3, 64, (len(forest),), generator=random),
        torch.from_numpy(axes[:, where]).long(),
        torch.randn(2, len(forest), 32, generator=random) * 0.3,
    )


def build(name, *, plain=False):
    """The same weights for every way to attend; those of biases and norms are not all alike."""
    kind, config = MODELS[name]()
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation="sdpa").eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    return model if plain else (model, adopt(model))


def packed(model, layers, drawn, name, **changed):
    """Hidden states of the whole row, with the count checked."""
    visibility = Visibility(choose(name)(drawn.forest.row()), layers=layers)
    given = drawn.inputs(model, np.arange(len(drawn.forest))) | changed
    out = model(**given, visibility=visibility).last_hidden_state[0]
    visibility.check()
    return out


def alone(model, drawn, where, *, own_mask):
    """Hidden states of one conversation in plain transformers, with its own mask or with one of 4 axes."""
    given = drawn.inputs(model, where)
    if own_mask:
        return model(**given).last_hidden_state[0]
    place, group = torch.arange(len(where)), torch.from_numpy(drawn.forest.group[where])
    seen = (place <= place[:, None]) | ((group == group[:, None]) & (group >= 0))
    near = seen & (place[:, None] - place < WINDOW)
    masks = {"full_attention": seen[None, None], "sliding_attention": near[None, None]}
    sliding = getattr(model.config, "layer_types", None) == SLIDING["layer_types"]
    return model(**given, attention_mask=masks if sliding else masks["full_attention"]).last_hidden_state[0]


def losses(drawn, hidden_of):
    """The loss of each node: its own tokens, each predicted from the one before it on the path."""
    head = torch.randn(32, 64, generator=torch.Generator().manual_seed(2))
    found = []
    for node in drawn.nodes:
        where = drawn.conversation(node)
        own = np.flatnonzero(drawn.forest.owner[where] == node)
        own = own[own > 0]
        hidden = hidden_of(where)
        found.append(F.cross_entropy(hidden[own - 1] @ head, drawn.tokens[where[own]], reduction="sum"))
    return torch.stack(found)


def gradients(model, loss):
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def distance(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("groups", [False, True])
@EVERY
@EACH
def test_a_tree_has_the_losses_and_gradients_of_its_conversations(model, name, groups):
    drawn, plain, (hedged, layers) = draw(groups=groups), build(model, plain=True), build(model)
    row = packed(hedged, layers, drawn, name)
    ours = losses(drawn, lambda where: row[where])
    theirs = losses(drawn, lambda where: alone(plain, drawn, where, own_mask=not groups))
    assert distance(ours.detach(), theirs.detach()) < 1e-5
    wanted = gradients(plain, (theirs * torch.arange(1.0, 9.0)).sum())
    assert distance(gradients(hedged, (ours * torch.arange(1.0, 9.0)).sum()), wanted) < 1e-5


@EVERY
@EACH
def test_a_packed_row_has_the_hidden_states_of_its_trees_alone(model, name):
    drawn, (hedged, layers) = draw(), build(model)
    with torch.no_grad():
        row = packed(hedged, layers, drawn, name)
        for nodes in (range(5), range(5, 8)):
            where = np.flatnonzero(np.isin(drawn.forest.owner, nodes))
            tree = drawn.forest.take(where)
            first = tree.order.min()
            tree = dataclasses.replace(tree, order=tree.order - first, end=tree.end - first)
            own = Drawn(tree, drawn.tokens[where], drawn.position[:, where], drawn.deep[:, where])
            assert distance(row[where], packed(hedged, layers, own, name)) < 1e-5


@pytest.mark.parametrize("checkpointed", [False, True])
@EVERY
@EACH
def test_no_gradient_reaches_a_sibling_or_another_tree(model, name, checkpointed):
    drawn, (hedged, layers) = draw(), build(model)
    if checkpointed:
        hedged.train().activation_checkpointing_enable()
    embedded = hedged.get_input_embeddings()(drawn.tokens)[None].detach().requires_grad_()
    row = packed(hedged, layers, drawn, name, input_ids=None, inputs_embeds=embedded)
    mixture = torch.arange(32.0).sin()
    for node in drawn.nodes:
        own = drawn.forest.owner == node
        (gradient,) = torch.autograd.grad((row[own] @ mixture).sum(), embedded, retain_graph=True)
        seen = np.isin(drawn.forest.owner, drawn.forest.path(node))
        assert (gradient[0, ~seen] == 0.0).all()
        assert (gradient[0, own] != 0.0).any(-1).all()


@EVERY
@EACH
def test_checkpointing_changes_no_gradient(model, name):
    drawn, found = draw(), []
    for checkpointed in (False, True):
        hedged, layers = build(model)
        if checkpointed:
            hedged.train().activation_checkpointing_enable()
        found.append(gradients(hedged, packed(hedged, layers, drawn, name).square().sum()))
    assert distance(*found) < 1e-6
