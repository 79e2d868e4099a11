import pickle
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from pydantic import ValidationError

from hedgerow.attention.register import BACKENDS
from hedgerow.data.mixture import DataSet, Rates
from hedgerow.data.transforms import HighResolution, Transforms
from hedgerow.errors import RecipeError
from hedgerow.recipe import Model, Recipe, load_recipe
from hedgerow.vision.hf import HFProcessor
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.text import TextProcessor
from hedgerow.weights import PRESETS, Weighting

SMALL = """
data:
  train:
    - path: trees.jsonl
    - {path: /data/other.jsonl, repeat: 2}
  evaluate: held.jsonl
model:
  spec: {}
vision: {crop_size: 84, patch_size: 7}
steps: 10
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults_are_those_of_the_fine_tuning_stage(write):
    recipe = load_recipe(write(SMALL))
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.betas, optimizer.eps, optimizer.clip) == (
        "adamw",
        (0.9, 0.95),
        1e-6,
        1.0,
    )
    assert (optimizer.vision.lr, optimizer.connector.lr, optimizer.language.lr) == (5e-6, 5e-6, 1e-5)
    assert (recipe.packing.budget.tokens, recipe.packing.budget.crops) == (16384, 128)
    assert (recipe.schedule.kind, recipe.schedule.floor) == ("cosine", 0.1)
    assert (recipe.loss.normalize, recipe.weights.preset) == ("weights", "molmo2")


def test_inputs_are_relative_to_the_file_and_out_to_the_working_directory(write, tmp_path):
    text = SMALL.replace("spec: {}", "checkpoint: ../base\n  tokenizer: tok") + "out: there\n"
    recipe = load_recipe(write(text))
    assert [source.path for source in recipe.data.train] == [
        tmp_path / "trees.jsonl",
        Path("/data/other.jsonl"),
    ]
    assert recipe.data.evaluate == (tmp_path / "held.jsonl",)
    assert recipe.model.checkpoint == tmp_path / "../base"
    assert recipe.model.tokenizer == str(tmp_path / "tok")
    begun = write(SMALL.replace("spec: {}", "tokenizer: tok") + "init: before\n")
    assert load_recipe(begun).init == tmp_path / "before"
    assert recipe.out == Path("there")


def test_an_override_is_relative_to_the_working_directory(write):
    recipe = load_recipe(
        write(SMALL), {"data.evaluate": "[x.jsonl, /y.jsonl]", "data.train.0.path": "z.jsonl"}
    )
    assert recipe.data.evaluate == (Path.cwd() / "x.jsonl", Path("/y.jsonl"))
    assert recipe.data.train[0].path == Path.cwd() / "z.jsonl"


MIXED = """
data:
  train:
    - {path: a.jsonl, group: seen, cap: 100}
    - {path: b.jsonl, group: said, factor: 1.5}
  groups: {seen: 0.3, said: 0.8}
  epoch: 500
  workers: 2
  transforms:
    templates: {pointing: ["Point to {label}.", "{text}"]}
    shuffle_options: true
    fps: [1, 2]
    high_resolution: {probability: 0.3}
    shuffle_branches: true
model: {spec: {}}
vision: {crop_size: 84, patch_size: 7}
packing: {window: 4096, balance: true, oversize: shorten}
steps: 10
"""


@pytest.mark.parametrize("family", ["molmo2", "qwen3_vl", "text"])
def test_vision_names_a_family(write, family):
    kinds = {"molmo2": Molmo2Processor, "qwen3_vl": Qwen3VLProcessor, "text": TextProcessor}
    text = SMALL.replace("spec: {}", "checkpoint: x").replace("{crop_size: 84, patch_size: 7}", "{}")
    recipe = load_recipe(write(text), {"vision.family": family})
    assert recipe.vision == kinds[family]()
    assert load_recipe(write(recipe.to_yaml())).vision == recipe.vision
    assert recipe.to_dict()["vision"]["family"] == family


@pytest.mark.parametrize(
    ("vision", "folder"), [("{family: processor}", "x"), ("{family: processor, folder: sub/y}", "sub/y")]
)
def test_a_processor_is_that_of_the_model_or_of_a_folder_beside_the_recipe(write, tmp_path, vision, folder):
    text = SMALL.replace("spec: {}", "checkpoint: x").replace("{crop_size: 84, patch_size: 7}", vision)
    recipe = load_recipe(write(text))
    assert recipe.vision == HFProcessor(str(tmp_path / folder))
    assert load_recipe(write(recipe.to_yaml())).vision == recipe.vision


def test_a_processor_of_no_model_wants_a_folder(write):
    text = SMALL.replace("model: {spec: {}}", "model: {}\ninit: x")
    with pytest.raises(RecipeError, match=r"vision.*folder: this key is missing"):
        load_recipe(write(text.replace("{crop_size: 84, patch_size: 7}", "{family: processor}")))


def test_a_family_that_does_not_exist_is_told_beside_those_that_do(write):
    with pytest.raises(RecipeError, match=r"vision: .*'qwen'.*'molmo2', 'qwen3_vl', 'processor', 'text'$"):
        load_recipe(write(SMALL), {"vision.family": "qwen"})


def test_a_recipe_that_names_no_family_is_for_molmo2(write):
    assert load_recipe(write(SMALL)).vision == Molmo2Processor(crop_size=84, patch_size=7)


def test_a_mixture_and_transforms_are_read_and_written(write, tmp_path):
    recipe = load_recipe(write(MIXED), {"data.transforms.high_resolution.max_crops": "12"})
    assert recipe.data.train == (
        DataSet(tmp_path / "a.jsonl", group="seen", cap=100),
        DataSet(tmp_path / "b.jsonl", group="said", factor=1.5),
    )
    assert recipe.data.rates == Rates({"seen": 0.3, "said": 0.8}, 500)
    assert recipe.data.transforms == Transforms(
        shuffle_options=True,
        templates={"pointing": ("Point to {label}.", "{text}")},
        fps=(1.0, 2.0),
        high_resolution=HighResolution(0.3, 12),
        shuffle_branches=True,
    )
    assert (recipe.packing.window, recipe.packing.balance, recipe.packing.oversize) == (4096, True, "shorten")
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


def test_by_default_an_epoch_is_every_example_as_it_is(write):
    recipe = load_recipe(write(SMALL))
    assert not recipe.data.rates.govern(recipe.data.train)
    assert not recipe.data.transforms
    assert (recipe.packing.window, recipe.packing.balance, recipe.packing.oversize) == (None, False, "raise")


def test_without_out_a_run_is_named_after_its_file_and_the_shipped_tokenizer_stays(write):
    recipe = load_recipe(write(SMALL))
    assert recipe.out == Path("runs/run")
    assert recipe.model.tokenizer == "tiny"


def test_dotted_overrides_reach_everything(write):
    overrides = {
        "steps": "3", "optimizer.language.lr": "1e-3", "optimizer.clip": "null",
        "optimizer.muon.momentum": ".5", "out": "elsewhere",
        "model.spec.layers": "2", "model.spec.feature_layers": "[-1]", "data.train.1.repeat": "5",
        "weights.scale.video_caption": "0.5", "packing.pad": "true", "vision.margins": "[1, 2]",
    }  # fmt: skip
    recipe = load_recipe(write(SMALL), overrides)
    assert recipe.steps == 3
    assert (recipe.optimizer.language.lr, recipe.optimizer.language.warmup) == (1e-3, 200)
    assert (recipe.optimizer.clip, recipe.optimizer.muon.momentum) == (None, 0.5)
    assert (recipe.model.spec.layers, recipe.model.spec.feature_layers) == (2, (-1,))
    assert recipe.data.train[1].repeat == 5
    assert recipe.weights.scale == {"video_caption": 0.5}
    assert (recipe.packing.pad, recipe.vision.margins, recipe.out) == (True, (1, 2), Path("elsewhere"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("stepz: 3", "stepz: unknown key 'stepz'; did you mean 'steps'?"),
        (
            "optimizer: {langage: {lr: 1}}",
            "optimizer.langage: unknown key 'langage'; did you mean 'language'?",
        ),
        ("optimizer: {language: {lrr: 1}}", "optimizer.language.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        (
            "packing: {budget: {token: 5}}",
            "packing.budget.token: unknown key 'token'; did you mean 'tokens'?",
        ),
        (
            "on_bad: skip",
            "on_bad: unknown key 'on_bad'; it belongs to another section; known keys here: context, data,",
        ),
        ("packing: {budget: {zzz: 5}}", "packing.budget.zzz: unknown key 'zzz'; known keys: crops, tokens\n"),
        (
            "loss: {dynamic: {name: focal, share: 1}}",
            "loss.dynamic.share: unknown key 'share'; it belongs to another section; known keys here: gamma, "
            "name\n",
        ),
        (
            "loss: {dynamic: {name: top, share: 2}}",
            "loss.dynamic.share: Input should be less than or equal to 1 (given: 2)",
        ),
        (
            "weights: {lexical: {keywords: {words: [a]}}}",
            "weights.lexical.keywords.words: a name is missing above it: {name: {words: ...}}\n",
        ),
        (
            "weights: {lexical: {keywords: [a]}}",
            "weights.lexical.keywords: keys and values are needed, in braces: {key: value}\n",
        ),
        (
            "weights: {spans: {opening: 0}}",
            "weights.spans.opening: keys and values are needed, in braces; known keys: factor, patterns,",
        ),
        (
            "{loss: {preference: {name: dpo}}, weights: {scale: {qa: 2}, schedule: {qa: [[0, 1]]}}}",
            "weights.scale, weights.schedule have no part in a preference loss; leave them out\n",
        ),
        (
            "{loss: {preference: {name: dpo}}, weights: {allow_negative: true}}",
            "weights.allow_negative have no part in a preference loss; leave them out\n",
        ),
        (
            "weights: {sources: {web: 1e+9}}",
            "weights.sources.web: Input should be less than or equal to 1000000",
        ),
        ("loss: {normalise: tokens}", "loss.normalise: unknown key 'normalise'; did you mean 'normalize'?"),
        ("vision: {crop_siz: 84}", "vision.crop_siz: unknown key 'crop_siz'; did you mean 'crop_size'?"),
        ("model: {spec: {layer: 2}}", "model.spec.layer: unknown key 'layer'; did you mean 'layers'?"),
        (
            "packing: {budget: {batas: 5}}",  # betas stands in another section
            "packing.budget.batas: unknown key 'batas'; known keys: crops, tokens\n",
        ),
        (
            "data: {train: x.jsonl}",
            "data.train: a list is needed, in brackets: [{path: x.jsonl}] (given: 'x.jsonl')\n",
        ),
        (
            "precision: bf61",
            "precision: Input should be 'fp32' or 'bf16' (given: 'bf61'); did you mean 'bf16'?\n",
        ),
        ("precision: fp16", "precision: fp16 overflows above 65504"),
        ("precision: fp8", "precision: Input should be 'fp32' or 'bf16' (given: 'fp8')"),
        ("loss: {normalize: mean}", "loss.normalize: Input should be 'weights', 'samples' or 'tokens'"),
        ("schedule: {kind: step}", "schedule.kind: Input should be 'cosine' or 'linear'"),
        ("weights: {preset: molmo}", "weights.preset: Input should be 'molmo2', 'molmo2_code' or 'uniform'"),
        (
            "weights: {scale: {qa: -1}}",
            "weights: scale.qa is below 0; give 0 or more, or set allow_negative",
        ),
        (
            "weights: {scale: {qa: -1}, allow_negative: true}",
            "weights.allow_negative: a sum of weights that may be below 0 is no divisor",
        ),
        (
            "weights: {lexical: {stopwords: {}}}",
            "weights.lexical.stopwords: unknown key 'stopwords'; did you mean 'stop_words'?",
        ),
        (
            "weights: {spans: {answer: {factor: .nan}}}",
            "weights.spans.answer.factor: Input should be a finite",
        ),
        (
            "weights: {spans: {answer: {pattern: '('}}}",
            "weights.spans.answer.pattern: '(' is no pattern (missing ), unterminated",
        ),
        ("weights: {tasks: {qa: usual}}", "weights.tasks.qa: give a weight, or 'otherwise' for c / sqrt(n)"),
        ("weights: {schedule: {qa: [[9, 1], [2, 0]]}}", "weights: the schedule of qa has the steps [9, 2]"),
        ("weights: {preset: uniform, c: 2}", "weights: c is 2, but the preset uniform has none"),
        (
            "weights: {lexical: {keywords: {art: {}}}}",
            "weights.lexical.keywords.art: no keywords; give words",
        ),
        ("optimizer: {language: {lr: .nan}}", "optimizer.language.lr: Input should be a finite number"),
        (
            "data: {train: [{path: /a, group: b}]}",
            "data: /a is of group 'b', and no group has a rate; give data.groups",
        ),
        (
            "data: {train: [{path: a, cap: 0}]}",
            "data.train.0.cap: Input should be greater than or equal to 1",
        ),
        (
            "data: {train: [{path: a, gruop: b}]}",
            "data.train.0.gruop: unknown key 'gruop'; did you mean 'group'?",
        ),
        ("data: {train: [{path: a}], groups: {b: 0}}", "data.groups.b: Input should be greater than 0"),
        (
            "data: {train: [{path: a}], transforms: {high_resolution: {probabilty: .3}}}",
            "data.transforms.high_resolution.probabilty: unknown key 'probabilty'; did you mean",
        ),
        (
            "data: {train: [{path: a}], transforms: {templates: {qa: ['{lable}']}}}",
            "data.transforms.templates: '{lable}' has a place {lable}; known are {label} and {text}",
        ),
        ("packing: {oversize: cut}", "packing.oversize: Input should be 'raise', 'drop' or 'shorten'"),
        ("packing: {window: 0}", "packing.window: Input should be greater than 0"),
        (
            "packing: {window: 99, pool: 5}",
            "packing: pool is 5 and window 99: examples wait in a pool, or are planned",
        ),
        (
            "data: {train: [{path: a}], transforms: {fps: 2}}",
            "data.transforms.fps: a list is needed, in brackets: [first, second] (given: 2)",
        ),
        (
            "context: 3",
            "context: 3 processes cannot share 4 heads and 2 kv_heads (model.spec) evenly; allowed: 1, 2",
        ),
        ("context: 4", "context: 4 processes cannot share 4 heads"),
        ("steps: 0", "steps: Input should be greater than 0 (given: 0)"),
        ("steps: many", "steps: Input should be a valid integer"),
        ("data: {train: []}", "data.train: Tuple should have at least 1 item"),
        ("model: {}", "the weights come from nowhere; give one of model.spec"),
        (
            "model: {spec: {}, checkpoint: x}",
            "the weights come from model.spec and model.checkpoint; give one",
        ),
        ("vision: {crop_size: 85}", "vision: crop_size 85 is no multiple of patch_size 14"),
        ("vision: {crop_size: 98, patch_size: 7}", "vision.crop_size is 98, model.spec.crop_size 84"),
        (
            "vision: {family: text}",
            "vision.family is text, model.spec is of a Molmo2; name a model.checkpoint",
        ),
        (
            "{vision: {family: qwen3_vl, crop_size: 84}, model: {checkpoint: x}}",
            "vision.crop_size: unknown key 'crop_size'",
        ),
        (
            "{vision: {family: qwen3_vl, min_pixel: 84}, model: {checkpoint: x}}",
            "vision.min_pixel: unknown key 'min_pixel'; did you mean 'min_pixels'?",
        ),
        (
            "{vision: {family: qwen3_vl, fps: 0}, model: {checkpoint: x}}",
            "vision: Qwen3VLProcessor(patch_size=16",
        ),
    ],
)
def test_a_wrong_value_is_one_line_with_file_key_and_what_is_allowed(write, change, told):
    path = write(yaml.safe_dump(yaml.safe_load(SMALL) | yaml.safe_load(change)))
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert f"{raised.value}\n".startswith(f"{path}: {told}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("optimizer.langage.lr", "1", "optimizer.langage: unknown key 'langage'; did you mean 'language'?"),
        ("steps.x", "1", "--steps.x: 'x' stands below the value 10, which has no keys"),
        ("data.train.2.path", "a", "--data.train.2.path: '2' is no place in a list of 2; give 0 to 1"),
        ("data.train.x", "a", "'x' is no place in a list of 2"),
        ("steps", "[1", "--steps:1: not YAML"),
    ],
)
def test_a_wrong_override_is_named(write, name, value, told):
    with pytest.raises(RecipeError) as raised:
        load_recipe(write(SMALL), {name: value})
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [("a: [1\nb: 2", ":2: not YAML"), ("", "holds no recipe"), ("- a", "holds no recipe")],
)
def test_a_file_that_is_no_recipe_is_named(write, text, told):
    with pytest.raises(RecipeError, match=f"run.yaml.*{told}"):
        load_recipe(write(text))


def test_a_missing_file_and_a_missing_package_say_what_to_do(write, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(RecipeError, match=r"pip install 'hedgerow\[cli\]'"):
        load_recipe(write(SMALL))


def test_yaml_of_a_recipe_gives_the_recipe_back(write, tmp_path):
    recipe = load_recipe(write(SMALL), {"optimizer.name": "muon", "weights.scale.qa": "2"})
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(again) == recipe


def test_a_recipe_is_frozen_and_travels_to_other_processes(write):
    recipe = load_recipe(write(SMALL))
    with pytest.raises(ValidationError):
        recipe.steps = 3
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_a_recipe_shows_itself_in_a_few_lines(write, tmp_path):
    shown = repr(load_recipe(write(SMALL), {"optimizer.name": "muon", "out": "runs/a"}))
    assert shown.splitlines() == [
        "Recipe: 10 steps of 1 rows, seed 0, fp32",
        f"  data       {tmp_path}/trees.jsonl, /data/other.jsonl",
        "  model      fresh weights, tokenizer tiny",
        "  row        16,384 tokens, 128 crops, pool of 48",
        "  loss       weights molmo2, over weights",
        "  optimizer  matrices by muon 0.002, vision 5e-06, connector 5e-06, language 1e-05; cosine to 0.1",
        "  out        runs/a",
    ]


def test_a_recipe_with_a_window_comes_back_and_shows_it(write, tmp_path):
    recipe = load_recipe(write(SMALL), {"packing.window": "4096", "context": "2"})
    assert "16,384 tokens, 128 crops, windows of 4,096" in repr(recipe)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_choices_that_are_listed_twice_agree():
    """The recipe names backends and presets itself: a wrong one is refused before anything is built."""
    choices = Model.model_json_schema()["properties"]["attention"]["enum"]
    assert {*choices} == {*BACKENDS, "auto"}
    assert get_args(get_type_hints(Weighting)["preset"]) == PRESETS


WEIGHTS = """
weights:
  c: 3
  tasks: {pointing: otherwise, counting: 0.5}
  sources: {web: 0.1}
  lexical:
    stop_words: {factor: 0.5, tasks: [qa]}
    keywords: {hearts: {file: lists/hearts.txt, words: [left atrium], case: exact}, here: {words: [dog]}}
    repeats: {}
    rarity: {table: idf.json, cap: 3}
  spans:
    opening: {}
    answer: {after: ["So:"]}
    grounded: {coordinates: 2}
    named: {names: {reason: 0.5}}
    speech: {tagger: "my.tags:tag", tags: {NOUN: 2}}
  normalize: none
  schedule: {video_caption: [[0, 1], [100, 0.25]]}
"""


def test_weights_are_data_and_their_files_stand_beside_the_recipe(write, tmp_path):
    weights = load_recipe(write(SMALL + WEIGHTS)).weights
    assert weights.lexical.keywords["hearts"].file == tmp_path / "lists" / "hearts.txt"
    assert weights.lexical.keywords["here"].file is None
    assert weights.lexical.rarity.table == tmp_path / "idf.json"
    assert weights.schedule == {"video_caption": ((0, 1.0), (100, 0.25))}
    names = [type(weigher).__name__ for weigher in weights.weighers]
    assert names == [
        *("StopWords", "Repeats", "Rarity", "Keywords", "Keywords"),
        *("Opening", "AnswerSpan", "Grounded", "Named", "Speech"),
    ]


def test_weights_come_back_from_a_saved_recipe(write, tmp_path):
    recipe = load_recipe(write(SMALL + WEIGHTS))
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_recipes_that_are_shipped_load():
    for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"):
        assert isinstance(load_recipe(path), Recipe)
