"""Cut-outs come from a folder of captioned pictures; what cannot be named or cut out is left."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hedgerow.data.synthetic import Scenes, annotate, make_scene, render, settings, truth
from hedgerow.data.synthetic.cutouts import plural, read_cutouts
from hedgerow.data.synthetic.draws import Draws
from hedgerow.errors import RecipeError

KNOBS = Scenes(look="cutouts", size=(96, 64), seconds=0.5, rate=4, extent=(0.25, 0.5), kinds=(1, 2))
NOUNS = {
    "birds/hen": "A hen.", "birds/hen2": "A hen.", "birds/duck": "A duck.", "food/apple": "A red apple.",
    "food/pear": "A pear", "tools/saw": "A saw.", "toys/duck": "A rubber duck.", "cars/van": "The van.",
}  # fmt: skip
NO_NOUNS = {
    "food/broccoli": "Eat your broccoli!", "tools/pliers": "A pair of pliers.", "symbols/a": "A letter.",
    "cars/cartoon/bus": "A bus.", "birds/two": "Two hens.", "birds/name": "An Adelaide Rosella.",
}  # fmt: skip


def write_stamp(path, caption, *, opaque=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGBA", (40, 30), (200, 30, 30, 255 if opaque else 0))
    ImageDraw.Draw(picture).ellipse((5, 5, 25, 25), fill=(30, 200, 30, 255))
    picture.save(path.with_suffix(".png"))
    path.with_suffix(".txt").write_text(f"{caption}\nde.utf8=Etwas\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stamps")
    for name, caption in (NOUNS | NO_NOUNS).items():
        write_stamp(folder / name, caption)
    write_stamp(folder / "food/square", "A square.", opaque=True)
    (folder / "food/mute.png").write_bytes((folder / "food/pear.png").read_bytes())
    (folder / "food/empty.png").write_bytes((folder / "food/pear.png").read_bytes())
    (folder / "food/empty.txt").write_text("")
    Image.new("RGBA", (40, 30)).save(folder / "food/clear.png")
    (folder / "food/clear.txt").write_text("A ghost.")
    return folder


def test_what_has_a_noun_and_a_matte_is_taken(folder):
    found = {
        cutout.path.relative_to(folder).with_suffix("").as_posix(): cutout.kind.name
        for cutout in read_cutouts(folder).pictures
    }
    assert found == {name: caption.split(" ", 1)[1].rstrip(".") for name, caption in NOUNS.items()}


def test_pictures_are_cut_to_their_matte(folder):
    library = read_cutouts(folder)
    kind = next(cutout.kind for cutout in library.pictures if cutout.kind.name == "saw")
    picture = library.picture(kind, Draws(0), side=42)
    assert picture.shape == (42, 42, 4)
    assert picture[21, 21].tolist() == [30, 200, 30, 255]
    assert (picture[..., :3] <= picture[..., 3:]).all()  # colours are multiplied by alpha
    assert picture[0, 0].tolist() == [0, 0, 0, 0]


def test_kinds_of_a_scene_can_be_told_apart(folder):
    library = read_cutouts(folder)
    groups = {cutout.kind: cutout.group for cutout in library.pictures}
    for seed in range(30):
        cast = library.cast(Draws(seed), asked=2, others=2)
        kinds = {*cast.asked, *cast.others, *cast.absent}
        assert len({groups[kind] for kind in kinds}) == len(kinds)
        words = [word for kind in kinds for word in kind.name.split()]
        assert len(words) == len(set(words))
        assert cast.absent
        assert not set(cast.others) & {*cast.asked, *cast.absent}


def test_scenes_of_cutouts_are_true_and_repeat(folder):
    knobs = dataclasses.replace(KNOBS, cutouts=folder)
    scene, again = (make_scene(knobs, seed=4) for _ in range(2))
    known = truth(scene)
    tree = annotate(scene, known, path="v.mp4")
    assert np.array_equal(render(scene), render(again))
    assert tree.to_dict() == annotate(again, truth(again), path="v.mp4").to_dict()
    assert set(known.labels) <= {cutout.kind.name for cutout in read_cutouts(folder).pictures}
    pixels = render(scene)[0][known.owner[0] > 0].astype(int)
    assert (np.abs(pixels - (30, 200, 30)).sum(1) < 40).mean() > 0.7


def test_cutouts_are_taken_where_there_are_any(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "STAMPS", tmp_path / "none")
    assert dataclasses.replace(KNOBS, look="auto").folder is None
    with pytest.raises(RecipeError, match=r"apt-get install tuxpaint-stamps-default, give cutouts=FOLDER or"):
        make_scene(KNOBS, seed=0)
    assert dataclasses.replace(KNOBS, look="auto", cutouts=folder).folder == folder
    monkeypatch.setattr(settings, "STAMPS", folder)
    assert dataclasses.replace(KNOBS, look="auto").folder == folder
    assert dataclasses.replace(KNOBS, look="shapes").folder is None


def test_a_folder_with_too_little_is_refused(folder, tmp_path):
    with pytest.raises(RecipeError, match="has no cut-out: PNG files with transparency are needed"):
        make_scene(dataclasses.replace(KNOBS, cutouts=tmp_path), seed=0)
    many = dataclasses.replace(KNOBS, cutouts=folder, kinds=(9, 9), objects=(9, 9))
    with pytest.raises(RecipeError, match=r"kinds that can be told apart, 11 are needed"):
        make_scene(many, seed=0)


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("red apple", "red apples"), ("fox", "foxes"), ("butterfly", "butterflies"), ("key", "keys"),
        ("mouse", "mice"), ("woodlouse", "woodlice"), ("fireman", "firemen"), ("clownfish", "clownfish"),
        ("brown potato", "brown potatoes"), ("paintbrush", "paintbrushes"), ("walrus", "walruses"),
        ("sea lion", "sea lions"), ("t-shirt", "t-shirts"), ("tooth", "teeth"), ("sheep", "sheep"),
    ],
)  # fmt: skip
def test_plurals(one, many):
    assert plural(one) == many


@pytest.mark.skipif(not settings.STAMPS.is_dir(), reason="tuxpaint-stamps-default is not installed")
def test_the_stamps_of_debian_have_hundreds_of_kinds():
    library = read_cutouts(settings.STAMPS)
    assert len({cutout.kind for cutout in library.pictures}) > 150
