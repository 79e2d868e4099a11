"""Costs, pooling and tokens of images against the arithmetic of Molmo2's processor in `transformers`."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from hedgerow.content import Image
from hedgerow.vision import Marks, Molmo2Processor
from hedgerow.vision.facts import ImageFacts
from hedgerow.vision.image import Tiler
from hedgerow.vision.pooling import stitch, windows

LIMITS = (1, 2, 8, 24)
WINDOW, MARGIN, CROP = 266, 112, 378


def sizes():
    """300 sizes (height, width): photos, strips, tiny ones, and those at which another grid fits best."""
    rng = np.random.default_rng(7)
    photos = rng.integers(200, 4200, (120, 2))
    anything = np.exp(rng.uniform(0, np.log(9000), (80, 2))).astype(int)
    tiny = rng.integers(1, 140, (30, 2))
    whole = rng.integers(1, 9, (40, 2)) * WINDOW + MARGIN + rng.integers(-1, 2, (40, 2))
    strips = np.stack([rng.integers(1, 200, 30), rng.integers(3000, 20_000, 30)], axis=1)
    strips[::2] = strips[::2, ::-1]
    found = np.concatenate([photos, anything, tiny, whole, strips])
    assert len(found) == 300
    return [(int(height), int(width)) for height, width in found]


SIZES = sizes()


@pytest.fixture(scope="module")
def public():
    return importlib.import_module("transformers.models.molmo2.image_processing_molmo2")


@pytest.fixture
def run(public, monkeypatch):
    """Have the public code make crops of a blank picture of a size: grids, pooling rows, number of crops."""
    import torch

    def blank(_backend, images, size, *_, **__):
        return torch.zeros((), dtype=torch.uint8).expand(*images.shape[:2], *size)

    monkeypatch.setattr(public, "resize_and_normalize_image", blank)
    rest = {"resample": None, "do_rescale": False, "rescale_factor": 1.0, "do_normalize": False}
    rest |= {"image_mean": [0.0], "image_std": [1.0], "image_patch_size": 14}

    def run(size, most, pool):
        processor = object.__new__(public.Molmo2ImageProcessor)
        picture = torch.zeros((), dtype=torch.uint8).expand(1, 1, *size)
        grids, patches, pooling = processor._image_batch_to_patches_and_grids(
            picture, most, [4, 4], CROP, image_pooling_w=pool, image_pooling_h=pool, **rest
        )
        return grids[0].tolist(), pooling[0].numpy(), patches.shape[1]

    return run


@pytest.mark.parametrize("most", LIMITS)
def test_grids_and_canvases_equal_the_public_code(public, most):
    tiler = Tiler(crop=CROP, patch=14, margins=(4, 4), max_crops=most)
    chosen = set()
    for size in SIZES:
        rows, columns, *canvas = public.compute_crop_geometry(*size, most, [4, 4], CROP, 14)
        assert tiler.tiling(size) == (rows, columns), size
        assert [side * 14 for side in tiler.patch_grid(size).shape] == canvas, size
        chosen.add((rows, columns))
    assert len(chosen) >= {1: 1, 2: 3, 8: 18, 24: 45}[most]  # of these sizes hardly a grid is never the best


@pytest.mark.parametrize(("most", "pool"), [(1, 2), (8, 2), (8, 3), (24, 2)])
def test_pooling_rows_grids_and_crops_equal_the_public_code(run, most, pool):
    processor = Molmo2Processor(max_crops=most, image_pooling=pool)
    tiler = Tiler(CROP, 14, (4, 4), most)
    low, _ = windows(stitch((1, 1), side=27, margins=(0, 0)), pool=pool)
    for size in SIZES:
        grids, pooling, crops = run(size, most, pool)
        layout = processor.layout(Image("p"), ImageFacts("p", size[1], size[0]))
        high, _ = windows(tiler.patch_grid(size), pool=pool)
        np.testing.assert_array_equal(np.concatenate([low, np.where(high < 0, -1, high + 27**2)]), pooling)
        assert [side for _, *shape in layout.grids for side in shape] == grids, size
        assert layout.crops == crops, size
        assert layout.slots == len(pooling), size


@pytest.mark.parametrize("most", LIMITS)
def test_token_counts_equal_the_public_code(public, most):
    space = importlib.import_module("transformers.models.molmo2.processing_molmo2").Molmo2Processor
    settings = SimpleNamespace(
        image_use_col_tokens=True, use_single_crop_col_tokens=False, use_single_crop_start_token=True
    )
    images = SimpleNamespace(
        max_crops=most,
        overlap_margins=[4, 4],
        patch_size=14,
        pooling_size=[2, 2],
        size={"height": CROP, "width": CROP},
    )
    processor = Molmo2Processor(max_crops=most)
    for size in SIZES:
        grid, crops = public.Molmo2ImageProcessor.get_image_grid_and_crops(images, *size)
        wanted = space.replace_image_token(settings, {"image_grids": [grid]}, 0)
        layout = processor.layout(Image("p"), ImageFacts("p", size[1], size[0]))
        (marks,) = layout.pieces
        assert isinstance(marks, Marks)
        assert "".join(marks.names) == wanted, size
        assert layout.crops == crops, size
