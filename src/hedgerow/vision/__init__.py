"""Images and videos: facts, sampled times, frames, crops; processors make tokens and pixels of them."""

from hedgerow.vision.facts import Facts, ImageFacts, VideoFacts, probe
from hedgerow.vision.image import as_image
from hedgerow.vision.processor import PATCH, Marks, MediaLayout, Molmo2Processor, VisionProcessor
from hedgerow.vision.qwen3_vl import Qwen3VLProcessor
from hedgerow.vision.sampling import frame_times
from hedgerow.vision.text import TextProcessor
from hedgerow.vision.video import decode_frames

__all__ = [
    "PATCH",
    "Facts",
    "ImageFacts",
    "Marks",
    "MediaLayout",
    "Molmo2Processor",
    "Qwen3VLProcessor",
    "TextProcessor",
    "VideoFacts",
    "VisionProcessor",
    "as_image",
    "decode_frames",
    "frame_times",
    "probe",
]
