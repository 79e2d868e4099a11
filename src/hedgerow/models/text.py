"""Language models without vision on packed rows: Qwen3, OLMo 3, Llama and others of their kind."""

from typing import Any

from torch import Tensor

from hedgerow.errors import RecipeError
from hedgerow.models.rows import RowModel
from hedgerow.sequence import VisionInput


class TextModel(RowModel):
    """A causal language model of `transformers`, its sliding windows included."""

    def features(self, vision: VisionInput) -> Tensor:  # noqa: ARG002  # of the base class
        """Refuse pixels.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(
            f"{type(self.hf).__name__} reads text only and the row has media; encode with vision.family: text"
        )

    def place(self, embeddings: Tensor, slot: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002
        """Return the embeddings: there is no feature to place."""
        return embeddings

    def parts(self) -> dict[str, Any]:
        """Return the language model."""
        return {"language": self.hf}
