"""The whole run as validated data, read from YAML."""

from hedgerow.recipe.loading import data_recipe, load_recipe
from hedgerow.recipe.recipe import Recipe
from hedgerow.recipe.sections import Data, Loss, Model, Optimizer, Packing, Rate, Room, Schedule

__all__ = [
    "Data",
    "Loss",
    "Model",
    "Optimizer",
    "Packing",
    "Rate",
    "Recipe",
    "Room",
    "Schedule",
    "data_recipe",
    "load_recipe",
]
