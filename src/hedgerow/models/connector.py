"""A connector that asks each pooling window with a learned vector instead of the mean of its patches.

The module of `transformers` pools a window with one query of attention, the mean of the window's patches
(arXiv 2601.10611, section 3.1). Only that query is another here; plain `transformers` would use the mean, so
a folder of such a model does not call itself a Molmo2.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Molmo2Config, Molmo2ForConditionalGeneration
from transformers.models.molmo2.modeling_molmo2 import Molmo2VisionAttention

LEARNED = "learned"
MODEL_TYPE = "hedgerow_molmo2"  # what config.json says where the query is learned


class LearnedQuery(Molmo2VisionAttention):  # type: ignore[misc]
    """Attention of one learned vector, as wide as the joined features, to the patches of each window.

    Args:
        config: `Molmo2AdapterConfig`.
        width: channels of the joined features.
    """

    def __init__(self, config: Any, width: int) -> None:
        super().__init__(config, hidden_size=width)
        self.query = nn.Parameter(torch.empty(width))
        self.reset_query()

    def reset_query(self) -> None:
        """Draw the vector anew, with deviation 1 as of normalised features."""
        nn.init.normal_(self.query)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Pool windows.

        Args:
            hidden_states: float [windows, 1, width], the means; only their shape counts.
            encoder_hidden_states: float [windows, patches, width].
            attention_mask: which patches there are.
            **options: of the attention function.

        Returns:
            float [windows, 1, D] and the attention weights, if kept.
        """
        asked = self.query.to(hidden_states.dtype).expand_as(hidden_states)
        found: tuple[Tensor, Tensor | None] = super().forward(
            asked, encoder_hidden_states, attention_mask, **options
        )
        return found


class LearnedQueryMolmo2(Molmo2ForConditionalGeneration):  # type: ignore[misc]
    """The Molmo2 of `transformers` with `LearnedQuery` in its connector."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        adapter = config.adapter_config
        width = adapter.hidden_size * len(adapter.vision_feature_layer)
        self.model.multi_modal_projector.image_pooling_2d = LearnedQuery(adapter, width)
        self.post_init()


def is_learned(config: Molmo2Config) -> bool:
    """Return whether the connector of this config has a learned query."""
    return getattr(config.adapter_config, "query", None) == LEARNED


def model_class(config: Molmo2Config) -> type[Any]:
    """Return the class that builds and loads a model of this config."""
    return LearnedQueryMolmo2 if is_learned(config) else Molmo2ForConditionalGeneration
