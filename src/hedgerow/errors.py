"""Every error a user can meet, as one small tree.

HedgerowError
├── DataError        a tree, a file or an annotation is wrong
│   ├── MediaError   an image or a video cannot be read
│   └── BudgetError  an example holds more than a row may
├── RecipeError      a recipe, a flag or an option is wrong
├── VisibilityError  attention would not have been what the row asks for
└── CheckError       a check ran and found the law broken

A message says what was given, what is allowed, and what to do. It fits one line.
"""


class HedgerowError(Exception):
    """Root of all errors raised on purpose."""


class DataError(HedgerowError):
    """A tree, a file or an annotation is wrong."""


class MediaError(DataError):
    """An image or a video cannot be read."""


class BudgetError(DataError):
    """An example holds more than a row may."""


class RecipeError(HedgerowError):
    """A recipe, a flag or an option is wrong."""


class VisibilityError(HedgerowError):
    """Attention would not have been what the row asks for."""


class CheckError(HedgerowError):
    """A check ran and found the law broken."""
