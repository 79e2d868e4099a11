"""What the processor of a checkpoint writes and shows: its own tokens and values, told from sizes alone."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from processor_toys import KINDS, checkpoint, public

from hedgerow.content import Image, Subtitle, Video
from hedgerow.errors import MediaError, RecipeError
from hedgerow.sequence import VisionInput
from hedgerow.testing import write_mp4, write_png
from hedgerow.vision.cache import FrameCache
from hedgerow.vision.facts import ImageFacts, probe
from hedgerow.vision.hf import HFProcessor
from hedgerow.vision.image import load_image
from hedgerow.vision.processor import Marks

SIZES = ((60, 40), (80, 20), (7, 90), (24, 24), (131, 77))
SCALED = {"image_mean": [0.1, 0.5, 0.7], "image_std": [0.3, 0.2, 0.1], "rescale_factor": 0.01}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: checkpoint(place / name, name) for name in KINDS}


def processor_of(folders, name, **fields):
    settings = KINDS[name].settings
    return HFProcessor(str(folders[name]), **({"images": settings, "frames": settings} | fields))


def seen(processor, media):
    return processor.visual(media, processor.layout(media, probe(media)))


def values(vision):
    """The pixels that the tower reads, by the table of the row: a slow way to look each of them up."""
    if vision.crops.ndim == 4:
        channels = [vision.levels[channel][vision.crops[..., channel]] for channel in range(3)]
        return np.stack(channels, axis=1)
    flat = vision.crops.reshape(len(vision.crops), 3, -1)
    return np.stack([vision.levels[channel][flat[:, channel]] for channel in range(3)], axis=1).reshape(
        vision.crops.shape
    )


@pytest.mark.parametrize("settings", [{}, SCALED, {"do_normalize": False}], ids=["own", "scaled", "plain"])
@pytest.mark.parametrize("name", KINDS)
def test_values_are_those_of_its_own_processor_to_the_last_bit(folders, tmp_path, name, settings):
    settings = KINDS[name].settings | settings
    processor = processor_of(folders, name, images=settings, frames=settings)
    tool = public(folders[name], name)
    for number, size in enumerate(SIZES):
        image = Image(str(write_png(tmp_path / f"{number}.png", size=size, seed=number)))
        found = tool(images=[PIL.Image.open(image.path)], text=[tool.image_token], images_kwargs=settings)
        pixels = np.asarray(found["pixel_values"])
        wanted = pixels[0] if pixels.ndim == 5 else pixels
        vision = seen(processor, image)
        assert vision.crops.dtype == np.uint8
        assert values(vision).dtype == wanted.dtype == np.float32
        assert (values(vision) == wanted).all()


@pytest.mark.parametrize("name", KINDS)
def test_layouts_from_sizes_are_what_the_pixels_become(folders, tmp_path, name):
    """Tokens, slots and crops, and the table that tells a tower of its images."""
    processor = processor_of(folders, name)
    image_token = public(folders[name], name).tokenizer.convert_ids_to_tokens(
        json.loads((folders[name] / "config.json").read_text())[
            "image_token_id" if name in ("smolvlm", "qwen2_5_vl", "internvl") else "image_token_index"
        ]
    )
    for number, size in enumerate(SIZES):
        image = Image(str(write_png(tmp_path / f"{number}.png", size=size, seed=number)))
        layout = processor.layout(image, ImageFacts(image.name, *size))
        (marks,) = (piece for piece in layout.pieces if isinstance(piece, Marks))
        vision = processor.visual(image, layout)
        assert marks.patch == image_token
        assert layout.slots == marks.names.count(image_token) == len(vision.pooling)
        assert layout.crops == len(vision.crops)
        assert sum(int(np.prod(grid)) for grid in layout.grids) == layout.slots
        crops, slots, height, width, whole = vision.images[0]
        assert (crops, slots, width, height) == (layout.crops, layout.slots, *size)
        assert vision.pooling.max() < layout.crops * vision.patches
        assert len(np.unique(vision.pooling)) == vision.pooling.size
        if name != "qwen2_5_vl":
            shown = np.asarray(PIL.Image.fromarray(np.asarray(load_image(image))).resize((24, 24)), float)
            distance = [np.abs(crop - shown).mean() for crop in vision.crops]
            assert int(np.argmin(distance)) == whole


@pytest.mark.parametrize("name", KINDS)
def test_a_video_is_its_frames_each_an_image_after_its_time(folders, tmp_path, name):
    video = Video(
        str(write_mp4(tmp_path / "v.mp4", size=(48, 32))), subtitles=(Subtitle(0.2, 0.4, "Hi"),), fps=2.0
    )
    processor = processor_of(folders, name, max_frames=3)
    layout = processor.layout(video, probe(video))
    texts = [piece for piece in layout.pieces if isinstance(piece, str)]
    marks = [piece for piece in layout.pieces if isinstance(piece, Marks)]
    begin, end = {"gemma3": ("\n\n",) * 2, "internvl": ("", "\n"), "llava_onevision": ("", "\n")}.get(
        name, ("", "")
    )
    assert texts == [
        f"0.0 {begin}",
        f"{end} 0.8 {begin}",
        f"{end} 1.5 {begin}",
        f"{end}\nSubtitles:\n0.2 - 0.4 Hi",
    ]
    alone = processor.layout(Image("a.png"), ImageFacts("a.png", 48, 32)).pieces
    (image,) = (piece for piece in alone if isinstance(piece, Marks))
    assert alone == tuple(piece for piece in (begin, image, end) if piece)
    assert marks == [image] * 3
    vision = processor.visual(video, layout)
    assert len(vision.images) == 3
    assert sum(frames for frames, _, _ in layout.grids) == 3
    assert len(np.unique(vision.pooling)) == vision.pooling.size
    # The square moves, so a frame alone has the crops of that frame.
    alone = seen(processor, dataclasses.replace(video, start=1.5, end=1.5, subtitles=()))
    assert (vision.crops[-len(alone.crops) :] == alone.crops).all()
    assert not (vision.crops[: len(alone.crops)] == alone.crops).all()


def test_frames_have_settings_of_their_own(folders, tmp_path):
    video = Video(str(write_mp4(tmp_path / "v.mp4")))
    whole = processor_of(folders, "smolvlm", frames={"do_image_splitting": False}, max_frames=2)
    assert whole.layout(video, probe(video)).crops == 2
    assert seen(whole, video).crops.shape == (2, 24, 24, 3)
    assert whole.layout(Image("a.png"), ImageFacts("a.png", 64, 48)).crops == 5


@pytest.mark.parametrize("name", KINDS)
def test_inputs_of_many_images_are_joined_and_kept(folders, tmp_path, name):
    """Their tables follow each other, a cache gives back what it was given."""
    processor = processor_of(folders, name, max_frames=2)
    images = [Image(str(write_png(tmp_path / f"{n}.png", size=size, seed=n))) for n, size in enumerate(SIZES)]
    parts = [seen(processor, image) for image in images]
    joined = VisionInput.join(parts)
    assert (joined.images == np.concatenate([part.images for part in parts])).all()
    assert (joined.levels == parts[0].levels).all()
    assert len(np.unique(joined.pooling)) == joined.pooling.size
    cache = FrameCache(processor, tmp_path / "frames", 10**8)
    video = Video(str(write_mp4(tmp_path / "v.mp4")))
    first, second = seen(cache, video), seen(cache, video)
    for field in dataclasses.fields(VisionInput):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_frames_are_made_again_when_the_settings_of_the_folder_change(folders, tmp_path):
    folder = shutil.copytree(folders["smolvlm"], tmp_path / "smolvlm")
    video = Video(str(write_mp4(tmp_path / "v.mp4")))
    kept = tmp_path / "frames"
    seen(FrameCache(HFProcessor(str(folder), max_frames=2), kept, 10**8), video)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"resample": 0}))
    seen(FrameCache(HFProcessor(str(folder), max_frames=2), kept, 10**8), video)
    assert len(list(kept.iterdir())) == 2


def test_it_is_pickled_without_the_processor_it_loads(folders, tmp_path):
    processor = processor_of(folders, "internvl")
    image = Image(str(write_png(tmp_path / "a.png")))
    wanted = seen(processor, image)
    data = pickle.dumps(processor)
    assert len(data) < 1000
    assert (seen(pickle.loads(data), image).crops == wanted.crops).all()


def test_transformers_is_imported_with_the_first_processor_only():
    code = "import sys, hedgerow.vision.hf; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# What does not fit


def test_a_setting_the_image_processor_does_not_have_is_named(folders):
    processor = processor_of(folders, "smolvlm", images={"max_patches": 3})
    with pytest.raises(RecipeError, match="has no setting max_patches; give some of"):
        processor.layout(Image("a.png"), ImageFacts("a.png", 60, 40))


def test_a_folder_without_a_processor_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"config\.json: no config that names a model_type"):
        _ = HFProcessor(str(tmp_path / "none")).axes
    (tmp_path / "config.json").write_text('{"model_type": "smolvlm"}')
    with pytest.raises(RecipeError, match="its processor cannot be loaded"):
        HFProcessor(str(tmp_path)).layout(Image("a.png"), ImageFacts("a.png", 60, 40))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", '{"model_type": "smolvlm", "text_config": {"hidden_size": "big"}}'),
        ("preprocessor_config.json", "[]"),
        ("processor_config.json", "{"),
    ],
)
def test_a_file_of_the_processor_that_is_wrong_is_told_in_one_line(folders, tmp_path, file, text):
    folder = shutil.copytree(folders["smolvlm"], tmp_path / "smolvlm")
    (folder / file).write_text(text)
    with pytest.raises(RecipeError, match="its processor cannot be loaded") as error:
        HFProcessor(str(folder)).layout(Image("a.png"), ImageFacts("a.png", 60, 40))
    assert "\n" not in str(error.value)


def test_values_of_settings_that_are_wrong_are_told(folders, tmp_path):
    wrong = {"image_mean": "x"}
    with pytest.raises(
        RecipeError, match=r"ProcessorPil fails with \{'image_mean': 'x'\} .*; correct vision"
    ):
        seen_by(folders, tmp_path, wrong)
    with pytest.raises(RecipeError, match=r"image_mean \[0\.5\], .*; give three numbers each"):
        seen_by(folders, tmp_path, {"image_mean": [0.5]})


def seen_by(folders, tmp_path, settings):
    image = Image(str(write_png(tmp_path / "a.png")))
    return seen(processor_of(folders, "smolvlm", images=settings, frames=settings), image)


def test_an_image_it_refuses_is_named(folders):
    with pytest.raises(MediaError, match=r"a\.png: .* refuses an image of 900 x 4 pixels: absolute aspect"):
        processor_of(folders, "qwen2_5_vl").layout(Image("a.png"), ImageFacts("a.png", 900, 4))


def test_an_image_that_changed_since_it_was_measured_is_refused(folders, tmp_path):
    image = Image(str(write_png(tmp_path / "a.png")))
    processor = processor_of(folders, "gemma3")
    layout = processor.layout(image, ImageFacts(image.name, 61, 40))
    with pytest.raises(MediaError, match=r"now \(60, 40\) pixels, \(61, 40\) when measured"):
        processor.visual(image, layout)


def test_images_and_frames_that_no_row_could_hold_side_by_side_are_refused(folders):
    with pytest.raises(RecipeError, match="have another image_mean, image_std, and a row holds both"):
        processor_of(folders, "smolvlm", images={key: SCALED[key] for key in ("image_mean", "image_std")})


def test_no_frames_are_no_video(folders):
    with pytest.raises(RecipeError, match=r"max_frames 0, fps 2\.0: give numbers above 0"):
        processor_of(folders, "gemma3", max_frames=0)
