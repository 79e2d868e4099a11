"""Whether a row is as a mapping asks."""

from typing import Any

from hedgerow.data.adapters.mapping import Condition, When
from hedgerow.data.adapters.paths import Scope, number_of, value_at
from hedgerow.errors import DataError


def holds(when: When, scope: Scope) -> bool:
    """Whether all conditions hold.

    Raises:
        DataError: there is no such column, or a value that is no number is compared with one.
    """
    return all(_holds(condition, path, scope) for path, condition in when.items())


def _holds(condition: Condition, path: str, scope: Scope) -> bool:
    value = value_at(path, scope)
    given = value is not None and value != [] and str(value).strip() != ""
    said = condition.model_fields_set
    tests = [
        "equals" not in said or _same(value, condition.equals),
        condition.one_of is None or any(_same(value, one) for one in condition.one_of),
        condition.none_of is None or not any(_same(value, one) for one in condition.none_of),
        condition.given is None or given is condition.given,
        condition.at_least is None or _number(path, value) >= condition.at_least,
        condition.at_most is None or _number(path, value) <= condition.at_most,
        condition.above is None or _number(path, value) > condition.above,
    ]
    if condition.multiple_of is not None:
        tests.append(
            _number(path, value) % _number(condition.multiple_of, value_at(condition.multiple_of, scope)) == 0
        )
    return all(tests)


def _same(value: Any, wanted: Any) -> bool:
    """Whether a value is the one that is asked for, or the text of it."""
    if not isinstance(value, str) or isinstance(wanted, str):
        return bool(value == wanted)
    if isinstance(wanted, bool):
        return value.strip().lower() == str(wanted).lower()
    return isinstance(wanted, int | float) and number_of(value) == wanted


def _number(path: str, value: Any) -> float:
    if isinstance(value, list):
        return len(value)
    number = number_of(value)
    if number is None:
        raise DataError(
            f"{path}: {value!r} is no number, and is compared with one; correct the row or 'when'"
        )
    return number
