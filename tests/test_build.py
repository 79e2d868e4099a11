import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from hedgerow.build import build_encoder
from hedgerow.errors import RecipeError
from hedgerow.recipe import load_recipe
from hedgerow.vision.cache import FrameCache

RECIPE = """
data:
  train: [{path: trees.jsonl}]
model: {spec: {}}
vision: {crop_size: 84, patch_size: 7}
steps: 1
"""


def recipe_of(folder, extra="", overrides=None):
    (folder / "recipe.yaml").write_text(RECIPE.replace("model:", f"{extra}model:"))
    return load_recipe(folder / "recipe.yaml", {"out": str(folder / "out"), **(overrides or {})})


def test_frames_are_kept_where_the_recipe_says(tmp_path):
    recipe = recipe_of(tmp_path, "  frames: {folder: kept, gigabytes: 0.5}\n")
    cache = build_encoder(recipe).processor
    assert isinstance(cache, FrameCache)
    assert (cache.folder, cache.limit) == (tmp_path / "kept", 500_000_000)
    assert cache.processor == recipe.vision


def test_without_a_folder_no_frames_are_kept(tmp_path):
    recipe = recipe_of(tmp_path)
    assert build_encoder(recipe).processor is recipe.vision


def test_a_folder_for_frames_that_cannot_be_written_stops_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    recipe = recipe_of(tmp_path, overrides={"data.frames.folder": str(tmp_path / "file" / "kept")})
    assert recipe.data.frames.gigabytes == 20
    with pytest.raises(RecipeError, match=r"data\.frames\.folder"):
        build_encoder(recipe)


def test_a_tokenizer_without_the_tokens_of_a_turn_is_refused(tmp_path):
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    recipe = recipe_of(tmp_path, overrides={"model.tokenizer": str(tmp_path), "model.template": "chatml"})
    with pytest.raises(RecipeError, match=r"no token <\|im_start\|> and .*set model.template: tokenizer"):
        build_encoder(recipe)


def test_damage_is_the_recipe_s_to_keep(tmp_path):
    assert recipe_of(tmp_path).vision.damaged == "refuse"
    assert recipe_of(tmp_path, overrides={"vision.damaged": "keep"}).vision.damaged == "keep"
    with pytest.raises(RecipeError, match="damaged"):
        recipe_of(tmp_path, overrides={"vision.damaged": "ignore"})
