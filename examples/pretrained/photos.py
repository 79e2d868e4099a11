"""Photos with captions: read from a table, parted into training and held-out ones, made into trees."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hedgerow.content import Image, Text
from hedgerow.data.adapters.records import read
from hedgerow.errors import DataError
from hedgerow.tree import Branch, Message, MessageTree

ASK = "Describe the photo."
CHOOSE = "Which of these does the photo show?"
OPTIONS = 4
_EACH = 2  # photos of a held-out thing that are measured at most


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo with what people said of it; photos of one `thing` are too alike to be parted."""

    path: str
    captions: tuple[str, ...]
    thing: str


@dataclass(frozen=True, slots=True)
class Parted:
    """Photos to train on, and photos of other things."""

    train: tuple[Photo, ...]
    held_out: tuple[Photo, ...]

    @property
    def known(self) -> frozenset[str]:
        """Return the captions that are trained on."""
        return frozenset(caption for photo in self.train for caption in photo.captions)


def read_photos(path: Path) -> tuple[Photo, ...]:
    """Read a table with columns `image` and `caption`, and perhaps `thing`: JSONL, CSV, TSV, JSON or Parquet.

    Paths are relative to the file. Rows of one image are several captions of it.

    Raises:
        DataError: the file cannot be read, lacks a column, or names an image that is not there.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    things: dict[str, str] = {}
    for record in read(path, path.stem):
        row = record.values()
        image, caption = row.get("image"), row.get("caption")
        if not isinstance(image, str) or not isinstance(caption, str) or not caption.strip():
            raise DataError(
                f"{record}: has {', '.join(row) or 'nothing'}; give 'image', a path, and 'caption', a text "
                "that is not empty"
            )
        place = str(record.folder / image)
        if place not in captions and not Path(place).is_file():
            raise DataError(f"{record}: {place} is not there; correct the path or put the photo there")
        captions[place].append(caption.strip())
        things[place] = str(row.get("thing") or image)
    return tuple(Photo(place, tuple(said), things[place]) for place, said in captions.items())


def part(photos: Sequence[Photo], *, share: float, most: int, seed: int) -> Parted:
    """Hold photos out, all of a thing or none.

    Args:
        photos: all.
        share: of the things that is held out.
        most: things held out at most.
        seed: of the choice.

    Raises:
        DataError: too few are left on one side.
    """
    things = sorted({photo.thing for photo in photos})
    count = min(round(share * len(things)), most)
    chosen = {things[number] for number in np.random.default_rng(seed).permutation(len(things))[:count]}
    found = Parted(
        tuple(photo for photo in photos if photo.thing not in chosen),
        tuple(
            photo
            for thing in things
            if thing in chosen
            for photo in [photo for photo in photos if photo.thing == thing][:_EACH]
        ),
    )
    said = {photo.captions[0] for photo in found.held_out}
    if not found.train or len(said) < OPTIONS:
        raise DataError(
            f"{len(photos)} photos of {len(things)} things leave {len(said)} captions to tell apart, "
            f"{OPTIONS} are needed; give at least {round(2 * OPTIONS / share)} photos"
        )
    return found


def options(photo: Photo, all_photos: Sequence[Photo], rng: np.random.Generator) -> list[str]:
    """Return the first caption of a photo among three of other things, in random order, all different."""
    own = photo.captions[0]
    said = {other.captions[0] for other in all_photos if other.thing != photo.thing}
    others = sorted(said - set(photo.captions))
    wrong = [others[number] for number in rng.permutation(len(others))[: OPTIONS - 1]]
    return [[own, *wrong][number] for number in rng.permutation(len(wrong) + 1)]


def describing(photo: Photo | None, name: str, captions: Sequence[str]) -> MessageTree:
    """Return a tree that asks once for a description, with captions as branches; without a photo too."""
    seen = () if photo is None else (Image(photo.path),)
    question = Message("user", (*seen, Text(ASK)))
    branches = [Branch((Message("assistant", caption),), task="image_caption") for caption in captions]
    return MessageTree(name, (question,), branches)


def training_trees(photos: Sequence[Photo], *, seed: int) -> list[MessageTree]:
    """Return a tree a photo: each caption, and which of four captions is true, as branches."""
    rng = np.random.default_rng(seed)
    return [_training_tree(photo, f"photo-{number}", photos, rng) for number, photo in enumerate(photos)]


def _training_tree(photo: Photo, name: str, photos: Sequence[Photo], rng: np.random.Generator) -> MessageTree:
    asked = [
        Branch((Message("user", ASK), Message("assistant", caption)), task="image_caption")
        for caption in photo.captions
    ]
    listed = "\n".join([CHOOSE, *options(photo, photos, rng)])
    choice = Branch((Message("user", listed), Message("assistant", photo.captions[0])), task="qa")
    return MessageTree(name, (Message("user", (Image(photo.path),)),), (*asked, choice))
