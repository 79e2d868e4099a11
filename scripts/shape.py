"""Holds the shape budgets: files of 500 lines, functions of 60. Prints what is over; exit code 1."""

import ast
import sys
from pathlib import Path

FILE, FUNCTION = 500, 60


def over(path: Path) -> list[str]:
    """Return one line for each budget a file breaks."""
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    found = [f"{path}: {lines} lines, at most {FILE}"] if lines > FILE else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION:
                found.append(f"{path}:{node.lineno} {node.name}: {length} lines, at most {FUNCTION}")
    return found


if __name__ == "__main__":
    files = [
        p
        for folder in ("src", "benchmarks", "examples", "scripts")
        for p in sorted(Path(folder).rglob("*.py"))
    ]
    problems = [line for path in files for line in over(path)]
    print("\n".join(problems) or f"shape: {len(files)} files within the budgets")
    sys.exit(bool(problems))
