"""Tiny media, made with PyAV, and pure functions of Molmo2's classes in `transformers`."""

import __future__

import ast
import importlib
import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "models"))  # for `processor_toys`

STEP = 15  # brightness between frame numbers


def picture(number: int, *, width: int = 64, height: int = 48):
    """A picture that says its number: the left half number % 16, the right half number // 16."""
    pixels = np.full((height, width, 3), STEP * (number % 16), np.uint8)
    pixels[:, width // 2 :] = STEP * (number // 16)
    return pixels


def write_video(
    path, pts, *, codec="libx264", base=Fraction(1, 1000), gop=250, bframes=2, pictures=None, **options
):
    """Write a video whose frame i is shown from pts[i] ticks on; `options` are the muxer's."""
    pictures = [picture(number) for number in range(len(pts))] if pictures is None else pictures
    with av.open(str(path), "w", options=options) as container:
        settings = {"crf": "10", "bf": str(bframes), "sc_threshold": "0"} if codec == "libx264" else {}
        stream = container.add_stream(
            codec, rate=round(1 / base) if base > Fraction(1, 100) else 10, options=settings
        )
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuvj420p" if codec == "mjpeg" else "yuv420p", gop
        stream.time_base = stream.codec_context.time_base = base
        for moment, pixels in zip(pts, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = moment, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def rewrite_packets(source, target, change):
    """Copy a video packet by packet; `change(number, data)` returns the bytes to write."""
    with av.open(source) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size:
                fresh = av.Packet(change(number, bytes(packet)))
                fresh.pts, fresh.dts, fresh.time_base = packet.pts, packet.dts, packet.time_base
                fresh.duration, fresh.is_keyframe, fresh.stream = packet.duration, packet.is_keyframe, stream
                new.mux(fresh)
    return str(target)


def numbers(frames):
    """Read the numbers of decoded pictures back."""
    middle = frames[:, frames.shape[1] // 2, :, 0].astype(float)
    low, high = middle[:, : middle.shape[1] // 4].mean(1), middle[:, -(middle.shape[1] // 4) :].mean(1)
    return [int(number) for number in np.rint(low / STEP) + 16 * np.rint(high / STEP)]


def load_functions(file, names, given):
    """Compile functions and methods of a module of `transformers.models.molmo2` without importing it."""
    folder = Path(importlib.util.find_spec("transformers").origin).parent / "models" / "molmo2"
    tree = ast.parse((folder / file).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in names]
    assert {node.name for node in found} == set(names)
    for node in found:
        node.decorator_list = []
    space = dict(given)
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.Module(found, []), file, "exec", flags=flags, dont_inherit=True), space)
    return space


@pytest.fixture(scope="session")
def oracle():
    """Functions of Molmo2's image processor; its resize is torch's own, which torchvision calls."""
    from torch.nn import functional

    # By its full name: asked for it, the package itself refuses without torchvision.
    public = importlib.import_module("transformers.models.molmo2.image_processing_molmo2")

    class Backend:
        """What the processor takes from torchvision."""

        @staticmethod
        def resize(image, size, antialias, **_):
            size = size.height, size.width
            return functional.interpolate(image, size=size, mode="bilinear", antialias=antialias)

        @staticmethod
        def rescale_and_normalize(image, *_):
            return image

    def crops(_self, *args, **options):
        return public.Molmo2ImageProcessor._build_overlapping_crops(Backend, *args, **options)

    names = ("select_tiling", "compute_crop_geometry", "arange_for_pooling")
    return {name: getattr(public, name) for name in names} | {"_build_overlapping_crops": crops}


@pytest.fixture(scope="session")
def media():
    """The makers above, for tests."""

    class Media:
        picture = staticmethod(picture)
        write_video = staticmethod(write_video)
        rewrite_packets = staticmethod(rewrite_packets)
        numbers = staticmethod(numbers)
        load_functions = staticmethod(load_functions)

    return Media
