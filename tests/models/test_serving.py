"""What a saved folder tells its server, and that the server shows the model what it was trained on."""

import functools
import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor as PlainProcessor
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor

from hedgerow.ask import encoder_of
from hedgerow.models.assemble import read_settings, save
from hedgerow.testing import write_mp4, write_png
from hedgerow.text import ChatFormat, ChatML, Rendered
from hedgerow.tree import Branch, Image, Message, MessageTree, Text, Video
from hedgerow.vision.facts import ImageFacts
from hedgerow.vision.processor import Marks, Molmo2Processor

SETTINGS = {"crop_size": 8, "patch_size": 2, "margins": [1, 1], "max_frames": 4, "fps": 2.0}


class Unchecked(PlainProcessor):
    """Without the look into a registry that there is with torchvision only."""

    def check_argument_for_proper_class(self, _, argument):
        assert argument is not None


@functools.cache
def plain_processor(folder):
    """The processor of `transformers`, put together from the files; its own loading asks for torchvision."""
    flags, _ = PlainProcessor.get_processor_dict(folder)
    assert flags.pop("processor_class") == "Molmo2Processor"
    return Unchecked(
        Molmo2ImageProcessor.from_pretrained(folder),
        Molmo2VideoProcessor.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        **flags,
    )


@pytest.fixture(scope="module")
def served(make_model, tokenizer, tmp_path_factory):
    """Save a model and return its folder: `served(bos)`, once for each."""
    folders = {}

    def make(bos):
        if bos not in folders:
            folders[bos] = tmp_path_factory.mktemp("served") / "model"
            save(make_model(), folders[bos], tokenizer=ChatFormat(tokenizer, ChatML(bos)), settings=SETTINGS)
        return folders[bos]

    return make


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    sizes = {"a": (30, 20), "b": (8, 50), "c": (7, 7)}
    images = [Image(str(write_png(folder / f"{name}.png", size=size))) for name, size in sizes.items()]
    return *images, Video(str(write_mp4(folder / "v.mp4", frames=5, fps=2)))


def conversations(a, b, c, video):
    """Messages, and which of them stand in the root of a tree."""
    user, answer = Message("user", "Where is it? "), Message("assistant", "Here.")
    both = Message("user", (a, b, Text("Which of them?")))
    return {
        "text": ([user], 1),
        "system": ([Message("system", "Be short."), Message("user", (a, Text("What?")))], 2),
        "image": ([Message("user", (a, Text("What?")))], 1),
        "image last": ([Message("user", (Text("What is this?"), a))], 1),
        "images": ([both], 1),
        "video": ([Message("user", (video, Text("When?")))], 1),
        "shown before": ([Message("user", (a,)), user], 1),
        "video shown before": ([Message("user", (video,)), user, answer, user], 1),
        "images shown twice": (
            [Message("user", (a, b)), user, answer, Message("user", (c, b, Text("?")))],
            1,
        ),
        "one, then two": ([Message("user", (c, Text("?"))), answer, both, answer, user], 1),
    }


NAMES = list(conversations(*[Image("x.png")] * 4))


def tree_of(messages, root):
    """The messages as a branch, beside another one that asks something else."""
    branches = [messages[root:]] if messages[root:] else []
    others = (Branch((Message("user", "And else?"), Message("assistant", "No."))),)
    own = tuple(Branch(tuple(branch)) for branch in branches)
    return MessageTree("t", tuple(messages[:root]), own + others)


def as_served(folder, messages, shown, *, asks):
    """The tokens that transformers' processor makes of messages whose media have these sizes and times."""
    plain = plain_processor(folder)
    turns = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": part.type}
                for part in message.parts
            ],
        }
        for message in messages
    ]
    text = plain.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks)
    for (width, height), times in shown:
        if times:
            grid = torch.tensor([len(times), 2, 2])
            text = text.replace("<|video|>", plain.get_video_string(grid, times), 1)
        else:
            grid, _ = plain.image_processor.get_image_grid_and_crops(height, width, {})
            text = text.replace("<|image|>", plain.replace_image_token({"image_grids": [grid]}, 0), 1)
    return plain(text=text)["input_ids"][0]


def ours(folder, messages, root):
    """The tokens of our prompt, the size and times of all media, and the tokens of the node in the tree."""
    encoder, tree = encoder_of(folder), tree_of(messages, root)
    node = next(node for node in tree.nodes() if list(node.path + node.messages) == messages)
    (prompt,) = encoder.prompts(tree, [node])
    alone = MessageTree("t", tuple(messages), (Branch((Message("assistant", "Yes."),)),))
    whole = encoder(alone)
    shown = [(layout.size, layout.times) for layout in encoder.layouts(alone)]
    return prompt.tokens.tolist(), shown, whole.tokens[np.argsort(whole.order)].tolist()


@pytest.mark.parametrize("bos", ["<|im_end|>", "<|endoftext|>"])
@pytest.mark.parametrize("name", NAMES)
def test_transformers_shows_a_model_the_very_prompt_it_was_trained_on(served, media, name, bos):
    messages, root = conversations(*media)[name]
    folder = served(bos)
    prompt, shown, whole = ours(folder, messages, root)
    assert as_served(folder, messages, shown, asks=True) == prompt
    asked = [{"role": "user", "content": "?"}]
    text = plain_processor(folder).tokenizer.apply_chat_template(asked, tokenize=False)
    assert text.startswith(bos)  # other servers put nothing before it
    assert prompt[0] == encoder_of(folder).chat.special(bos)
    said = [*messages, Message("assistant", "Yes.")]
    assert as_served(folder, said, shown, asks=False) == whole
    assert whole[: len(prompt)] == prompt


@pytest.mark.parametrize("name", NAMES)
def test_without_a_first_token_transformers_puts_one_before_media_alone(served, media, name):
    """Its processor cannot do otherwise; docs/models.md says so."""
    messages, root = conversations(*media)[name]
    prompt, shown, _ = ours(served(""), messages, root)
    start = encoder_of(served("")).chat.special("<|im_start|>")
    extra = [] if prompt[0] == start else [start]
    assert bool(extra) == (name not in ("text", "system"))
    assert as_served(served(""), messages, shown, asks=True) == extra + prompt


@pytest.mark.parametrize("bos", ["", "<|im_end|>"])
def test_the_chat_format_is_read_back_and_media_settings_are_as_given(served, bos):
    assert read_settings(served(bos)) == SETTINGS
    assert encoder_of(served(bos)).chat.template == ChatML(bos)
    told = json.loads((served(bos) / "tokenizer_config.json").read_text())
    assert told["bos_token"] == (bos or "<|im_start|>")


OTHER = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


def test_a_model_trained_with_its_own_template_is_served_with_it(make_model, tokenizer, tmp_path):
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=OTHER, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    chat = ChatFormat(tokenizer, Rendered(own, "<|endoftext|>"))
    save(make_model(), tmp_path / "model", tokenizer=chat, settings=SETTINGS)
    messages = [Message("user", "Where?")]
    prompt, _, _ = ours(tmp_path / "model", messages, 1)
    asked = [{"role": "user", "content": "Where?"}]
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = plain.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|endoftext|>[user]Where?<|im_end|>[assistant]"
    assert plain(text)["input_ids"] == prompt


def test_plain_transformers_writes_the_same_tokens_for_media(served):
    plain = plain_processor(served(""))
    ours = Molmo2Processor(**(SETTINGS | {"margins": (1, 1)}))
    for size in ((20, 30), (50, 8), (7, 5)):
        layout = ours.layout(Image("a.png"), ImageFacts("a.png", *size), label=None)
        (marks,) = layout.pieces
        assert isinstance(marks, Marks)
        (_, low, _), (_, high, wide) = layout.grids
        grids = {"image_grids": [[low, low, high, wide]]}
        assert plain.replace_image_token(grids, 0) == "".join(marks.names)
        grid, crops = plain.image_processor.get_image_grid_and_crops(size[1], size[0], {})
        assert (grid, crops) == ([low, low, high, wide], layout.crops)
    assert plain.video_processor.num_frames == 4
    assert plain.video_processor.max_fps == 2
    assert plain.video_processor.pooling_size == [3, 3]
    marks = "<frame_start>" + "<im_patch>" * 4 + "<frame_end>"
    assert plain.get_video_string(torch.tensor([2, 2, 2]), [0.0, 0.5]) == f"0.0 {marks} 0.5 {marks}"
