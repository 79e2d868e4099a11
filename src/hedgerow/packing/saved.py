"""Plans on disk: read back only for the data, the budget and the settings that they were made from."""

import dataclasses
import hashlib
import itertools
import json
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hedgerow.errors import RecipeError
from hedgerow.sequence import Budget, Cost, Costs

Setting = int | str | None

VERSION = 2  # goes up with every change after which `plan_rows` or `Packer` gives other rows


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """What the rows of a plan follow from. Two that are equal have the same plan.

    | field | type | meaning |
    |---|---|---|
    | data | str | fingerprint of the costs, and of whatever else tells the examples |
    | budget | Budget | the most a row may hold |
    | settings | mapping | what else the planner was given, such as seed, epoch, pool and window |
    | version | int | of the planner: another one gives other rows |
    """

    data: str
    budget: Budget
    settings: Mapping[str, Setting]
    version: int = VERSION

    @classmethod
    def of(
        cls, costs: Iterable[Cost], budget: Budget, *, identity: bytes = b"", **settings: Setting
    ) -> "Match":
        """Fingerprint the costs (SHA-256 of their names and table).

        Args:
            costs: of all examples, in their order.
            budget: the most a row may hold.
            identity: what tells these examples from others with the same costs, such as their ids.
            **settings: what else the planner is given.
        """
        table = Costs.of(costs)
        digest = hashlib.sha256(json.dumps([table.names, len(table), len(identity)]).encode())
        digest.update(identity)
        digest.update(np.ascontiguousarray(table.amounts(*table.names), "<i8").data)
        return cls(digest.hexdigest(), budget, dict(settings))

    def differences(self, other: "Match") -> list[str]:
        """Name what is not the same in `other`, such as `pool was 48 and is 64`; empty when all is."""
        pairs: dict[str, tuple[Any, Any]] = {
            "planner version": (self.version, other.version),
            "data": (self.data[:12], other.data[:12]),
            "budget": (self.budget, other.budget),
        }
        for name in dict.fromkeys([*self.settings, *other.settings]):
            pairs[name] = (self.settings.get(name, "not set"), other.settings.get(name, "not set"))
        return [f"{name} was {was} and is {now}" for name, (was, now) in pairs.items() if was != now]

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(
            {
                "data": self.data,
                "budget": dict(self.budget),
                "settings": dict(self.settings),
                "version": self.version,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Match":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return cls(values["data"], Budget(**values["budget"]), values["settings"], values["version"])


def save_rows(path: Path, rows: list[list[int]], cost: Cost, match: Match) -> None:
    """Write rows of example indices as .npz; a file that is there is replaced whole."""
    arrays = {
        "match": np.array(match.to_json()),
        "cost": np.array(json.dumps(dict(cost))),
        "examples": np.fromiter(itertools.chain.from_iterable(rows), np.int64),
        "ends": np.cumsum([len(row) for row in rows], dtype=np.int64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # ranks may write the same plan at once
    try:
        with fresh.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def load_rows(path: Path, match: Match) -> tuple[list[list[int]], Cost]:
    """Read rows back, and the cost of all examples.

    Raises:
        RecipeError: there is no file, it was saved for something else, or is not a whole plan.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            saved = Match.from_json(str(found["match"]))
            changed = saved.differences(match)
            if changed:
                raise RecipeError(
                    f"{path} holds another plan: {'; '.join(changed)}. Restore what it was made with, "
                    "or delete the file and plan again"
                )
            cost = Cost(**json.loads(str(found["cost"])))
            return split_rows(found["examples"], found["ends"]), cost
    except OSError as error:
        raise RecipeError(
            f"{path}: no saved plan can be read there ({error.strerror}); give the file that Plan.save "
            "wrote, or plan again"
        ) from None
    except (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, AttributeError) as error:
        raise RecipeError(f"{path} is not a whole saved plan ({error}): delete it and plan again") from error


def split_rows(examples: Any, ends: Any) -> list[list[int]]:
    """Cut a flat int64 [n] into rows that end at `ends`, int64 [rows]."""
    flat = examples.tolist()
    return [flat[start:end] for start, end in itertools.pairwise([0, *ends.tolist()])]
