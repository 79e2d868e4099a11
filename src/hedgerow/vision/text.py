"""A model that reads text only."""

from dataclasses import dataclass
from typing import Literal, NoReturn

from hedgerow.content import Image, Media
from hedgerow.errors import MediaError
from hedgerow.sequence import VisionInput
from hedgerow.vision.facts import Facts
from hedgerow.vision.processor import Groups, MediaLayout, Placement


@dataclass(frozen=True, slots=True)
class TextProcessor:
    """Refuses all media.

    Attributes:
        family: what a recipe calls this processor.
    """

    family: Literal["text"] = "text"

    @property
    def groups(self) -> Groups:
        """Text is causal."""
        return "none"

    @property
    def axes(self) -> int:
        """Tokens are numbered in one row."""
        return 1

    @property
    def placement(self) -> Placement:
        """There are no media to place."""
        return "inside"

    def filled(self, media: Media, *, several: bool = False) -> NoReturn:  # noqa: ARG002  # of the protocol
        """Refuse an image or a video.

        Raises:
            MediaError: always.
        """
        kind = "an image" if isinstance(media, Image) else "a video"
        raise MediaError(
            f"{media.name} is {kind}, a media type the model cannot see: it reads text only (vision.family: "
            "text); leave the media out, or train a model that sees"
        )

    def layout(self, media: Media, facts: Facts, *, label: str | None) -> MediaLayout:  # noqa: ARG002
        """Refuse an image or a video, as `filled` does."""
        self.filled(media)

    def visual(self, media: Media, layout: MediaLayout) -> VisionInput:  # noqa: ARG002
        """Refuse an image or a video, as `filled` does."""
        self.filled(media)
