"""The JSON Schema of the native format, made from the code and shipped beside it."""

import json
from pathlib import Path
from typing import Any

from hedgerow.tree import json_schema

SHIPPED = Path(__file__).with_name("tree.schema.json")


def schema_text() -> str:
    """Return the schema as it is shipped."""
    return json.dumps(json_schema(), indent=1, sort_keys=True) + "\n"


def shipped_schema() -> dict[str, Any]:
    """Return the schema that came with the package; a test holds it equal to the code's."""
    return dict(json.loads(SHIPPED.read_text(encoding="utf-8")))


if __name__ == "__main__":
    SHIPPED.write_text(schema_text(), encoding="utf-8")
