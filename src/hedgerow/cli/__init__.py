"""The command line. Heavy modules are imported by the verb that needs them, so that help is instant."""

import os
import sys
from typing import Any

try:
    from cyclopts import App, CycloptsError
except ImportError:  # pragma: no cover
    raise SystemExit("the command line needs more packages: pip install 'hedgerow[cli]'") from None

from hedgerow.cli.asking import ask
from hedgerow.cli.assembling import assemble
from hedgerow.cli.data import data
from hedgerow.cli.exporting import export
from hedgerow.cli.training import app
from hedgerow.cli.weights import weights
from hedgerow.errors import CheckError, HedgerowError

__all__ = ["app", "main"]

app.command(ask)
app.command(assemble)
app.command(data)
app.command(export)
experiment = App(name="experiment", help="Experiments on your own recipe and data.")
app.command(experiment)
experiment.command(weights)


def main() -> None:
    """Run the command line; 0 is success, 1 a failed check, 2 bad input."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CheckError as error:
        _fail(error, code=1)
    except (HedgerowError, CycloptsError) as error:
        _fail(error, code=2)
    except BrokenPipeError:  # whoever reads has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; give a path that can be used", code=2)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)


def _fail(error: Any, *, code: int) -> None:
    print("hedgerow:", " ".join(str(error).splitlines()), file=sys.stderr)
    raise SystemExit(code)
