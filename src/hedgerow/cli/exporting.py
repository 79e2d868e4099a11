"""The verb that writes the model of a run to a folder."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hedgerow.cli.given import AsJson, fields


def export(
    run: Path,
    /,
    *,
    to: Path,
    dtype: Literal["fp32", "bf16"] = "fp32",
    step: int | None = None,
    adapter: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the model of a run to a folder that plain transformers reads, adapters merged.

    Parameters
    ----------
    run
        The recipe of the run, or its folder.
    to
        Folder to write; an earlier export there is replaced.
    dtype
        Of the weights that are written.
    step
        Of a checkpoint that is kept; without it the finished model, or the newest checkpoint.
    adapter
        Write the adapters alone, in the layout of peft.
    """
    from hedgerow.train.export import export as write

    result = write(run, to, dtype=dtype, step=step, adapter=adapter)
    print(fields(result) if as_json else result)
