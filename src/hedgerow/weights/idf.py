"""How rare words are: in how many answers of a corpus each one stands."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hedgerow.content import Image, Text, Video
from hedgerow.errors import DataError
from hedgerow.tree import MessageTree
from hedgerow.weights.answer import words_of


@dataclass(frozen=True, slots=True)
class Idf:
    """A table of document frequencies; whether a word is written in capitals does not matter.

    Attributes:
        documents: N, how many texts were read.
        counts: df, in how many of them each word stands.
    """

    documents: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def fit(cls, texts: Iterable[str]) -> "Idf":
        """Count the words of texts, each text a document; `answer_texts` gives those of trees."""
        documents = 0
        counts: Counter[str] = Counter()
        for text in texts:
            documents += 1
            counts.update({word.text.casefold() for word in words_of(text)})
        return cls(documents, dict(counts))

    def merge(self, other: "Idf") -> "Idf":
        """Return the table of both corpora together: what fitting on all texts at once gives."""
        counts = Counter(self.counts)
        counts.update(other.counts)
        return Idf(self.documents + other.documents, dict(counts))

    def __call__(self, word: str) -> float:
        """Return log((1 + N) / (1 + df)) + 1: 1 for a word of every document, more for a rarer one."""
        return math.log((1 + self.documents) / (1 + self.counts.get(word.casefold(), 0))) + 1

    def save(self, path: str | Path) -> None:
        """Write the table as JSON; equal tables give equal files."""
        value = {"documents": self.documents, "counts": dict(sorted(self.counts.items()))}
        Path(path).write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Idf":
        """Read a table.

        Raises:
            DataError: the file cannot be read, or is no table.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: cannot be read as an idf table ({error}); make one: Idf.fit(texts).save(path)"
            ) from None
        if not _is_table(value):
            raise DataError(
                f"{path}: no idf table; one holds 'documents', a number, and 'counts', in how many each "
                "word stands"
            )
        return cls(value["documents"], value["counts"])

    def __repr__(self) -> str:
        """Show the size."""
        return f"Idf of {self.documents:,} documents, {len(self.counts):,} words"


def _is_table(value: Any) -> bool:
    if not isinstance(value, dict) or {*value} != {"documents", "counts"}:
        return False
    documents, counts = value["documents"], value["counts"]
    return (
        isinstance(documents, int)
        and isinstance(counts, dict)
        and all(isinstance(count, int) and 0 < count <= documents for count in counts.values())
    )


def answer_texts(trees: Iterable[MessageTree]) -> Iterator[str]:
    """Yield what each answer of trees says, labels included: the documents of an `Idf`."""
    for tree in trees:
        for node in tree.nodes():
            for message in node.messages:
                if message.role == "assistant":
                    said = [part for part in message.parts if not isinstance(part, Image | Video)]
                    yield " ".join(part.text if isinstance(part, Text) else part.label for part in said)
