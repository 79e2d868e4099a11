"""What processors share that change nothing but where pixels come from."""

from hedgerow.content import Media
from hedgerow.vision.facts import Facts
from hedgerow.vision.processor import Groups, MediaLayout, Placement, VisionProcessor


class Wrapped:
    """A `VisionProcessor` but for its pixels: lays media out as another one does.

    Args:
        processor: the other one.
    """

    def __init__(self, processor: VisionProcessor) -> None:
        self.processor = processor

    @property
    def groups(self) -> Groups:
        """Those of the processor."""
        return self.processor.groups

    @property
    def axes(self) -> int:
        """Those of the processor."""
        return self.processor.axes

    @property
    def placement(self) -> Placement:
        """That of the processor."""
        return self.processor.placement

    def filled(self, media: Media, *, several: bool = False) -> Media:
        """Return the media with the processor's settings where it has none of its own."""
        return self.processor.filled(media, several=several)

    def layout(self, media: Media, facts: Facts, *, label: str | None = None) -> MediaLayout:
        """Write down the tokens of one image or video; see `VisionProcessor`."""
        return self.processor.layout(media, facts, label=label)
