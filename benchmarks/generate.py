"""Several questions on one video: one `generate` here against one of `transformers` for each question.

    python benchmarks/generate.py [--json] [--questions 8] [--frames 64] [--tokens 32]

A random model of the default sizes, in fp32 on one thread; greedy, and every answer has `--tokens` tokens.
`transformers` gets the same crops, windows and tokens, with the bidirectional mask, and its own model with
the same weights; "batched" are all questions in one call, the clip once for each. Seconds are CPU seconds of
the process, pixels already decoded. Memory is the peak above model and prompts, each way in a process of its
own (Linux). `equal` is the share of tokens that are those of `transformers` for one question.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import takewhile, zip_longest
from pathlib import Path

import numpy as np
import torch
from transformers import Molmo2Config, Molmo2ForConditionalGeneration

from figures import peak_of, tell
from hedgerow.content import Video
from hedgerow.encode import Encoder
from hedgerow.models.assemble import ModelSpec, build
from hedgerow.models.generate import generate
from hedgerow.models.sampling import Sampling
from hedgerow.sequence import VisionInput
from hedgerow.text import ChatFormat, load_tokenizer
from hedgerow.tree import Branch, Message, MessageTree
from hedgerow.vision.processor import Molmo2Processor
from hedgerow.vision.write import write_video

OURS = ("together", "one by one")
WAYS = (*OURS, "transformers", "transformers, batched")
SPEC = ModelSpec()
ASKED = (
    "What moves first?", "Point to the square.", "How many things are there?", "Describe the video.",
    "Which way does it go?", "When does it stop?", "Is there a ball in it, and if so of what colour?", "Why?",
)  # fmt: skip


class Case:
    """A model, its twin in plain `transformers`, and questions about one clip."""

    def __init__(self, questions, frames, tokens):
        tokenizer = load_tokenizer("tiny")
        self.chat = ChatFormat(tokenizer)
        self.model = build(SPEC, tokenizer=tokenizer, seed=0).eval()
        hf = self.model.hf
        self.plain = Molmo2ForConditionalGeneration(Molmo2Config.from_dict(hf.config.to_dict())).eval()
        self.plain.load_state_dict(hf.state_dict(), assign=True)
        self.prompts = prompts(self.chat, questions, frames)
        self.tokens = tokens
        self.prefill = self.rate = 0.0

    def run(self, way):
        """Return the tokens of all answers."""
        if way == "transformers":
            return [answer for prompt in self.prompts for answer in self.theirs([prompt])]
        if way == "transformers, batched":
            return self.theirs(self.prompts)
        groups = [self.prompts] if way == "together" else [[prompt] for prompt in self.prompts]
        sampling = Sampling(max_new_tokens=self.tokens)
        found = [generate(self.model, group, self.chat, sampling) for group in groups]
        self.prefill = sum(one.prefill_seconds for one in found)
        self.rate = found[0].tokens_per_second
        return [list(answer.tokens) for one in found for answer in one.answers]

    def theirs(self, asked):
        """Answer prompts in one call, those that are shorter padded on the left."""
        size = self.plain.config.vision_config.patch_size
        longest = max(map(len, asked))
        table = np.zeros((3, len(asked), longest), np.int64)
        for row, prompt in enumerate(asked):
            fields = (prompt.tokens, prompt.group >= 0, np.ones(len(prompt)))
            table[:, row, longest - len(prompt) :] = np.stack(fields)
        tokens, visual, real = torch.from_numpy(table)
        vision = VisionInput.join([prompt.vision for prompt in asked])
        found = self.plain.generate(
            input_ids=tokens,
            mm_token_type_ids=visual,
            attention_mask=real,
            pixel_values=patches(torch.from_numpy(vision.crops), size),
            image_token_pooling=torch.from_numpy(vision.pooling).long(),
            image_grids=torch.tensor([[len(prompt.slot), 1, 0, 0] for prompt in asked]),
            max_new_tokens=self.tokens,
            do_sample=False,
            eos_token_id=self.chat.stop,
            pad_token_id=self.chat.stop,
        )[:, longest:].tolist()
        return [list(takewhile(lambda token: token != self.chat.stop, answer)) for answer in found]


def patches(crops, size):
    """Return float [C, patches, size * size * 3] in [-1, 1]."""
    count, height, width, _ = crops.shape
    pieces = crops.reshape(count, height // size, size, width // size, size, 3).transpose(2, 3)
    return pieces.reshape(count, -1, size * size * 3).float() / 127.5 - 1.0


def prompts(chat, questions, frames):
    """Return questions about a clip in which a square crosses noise."""
    rng = np.random.default_rng(0)
    side = SPEC.crop_size - SPEC.crop_size % 2
    pictures = rng.integers(0, 99, (frames, side, side, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        picture[20:40, number % (side - 20) :][:, :20] = 255
    processor = Molmo2Processor(crop_size=SPEC.crop_size, patch_size=SPEC.patch_size, max_frames=frames)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, pictures, rate=2)
        branches = [Branch([Message("user", ASKED[n % len(ASKED)])]) for n in range(questions)]
        tree = MessageTree(id="clip", messages=[Message("user", [Video(str(path))])], branches=branches)
        return Encoder(chat, processor).prompts(tree, tree.nodes()[1:])


def in_a_process(given, way):
    sizes = (f"--{name}={getattr(given, name)}" for name in ("questions", "frames", "tokens"))
    command = [sys.executable, __file__, "--memory", way, *sizes]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def equal(answers, others):
    """Return the share of tokens that are the same."""
    pairs = [
        pair for both in zip(answers, others, strict=True) for pair in zip_longest(*both, fillvalue=None)
    ]
    return sum(one == other for one, other in pairs) / len(pairs)


def measure(given, repeats=2):
    """Return all figures; ways take turns, the best time of each counts."""
    case = Case(given.questions, given.frames, given.tokens)
    name = f"{given.questions} questions, {given.frames} frames"
    seconds, answers, extra = {way: [] for way in WAYS}, {}, {}
    for _ in range(repeats):
        for way in WAYS:
            start = time.process_time()
            answers[way] = case.run(way)
            seconds[way].append(time.process_time() - start)
            extra[way] = (case.prefill, case.rate)
    best = {way: min(found) for way, found in seconds.items()}
    results = [(name, "prompt", len(case.prompts[0]), "tokens")]
    results += [(name, way, value, "s") for way, value in best.items()]
    results += [(name, f"transformers / {way}", best["transformers"] / best[way], "ratio") for way in OURS]
    for way in OURS:
        results.append((name, f"{way}: prefill", extra[way][0], "s"))
        results.append((name, f"{way}: written", extra[way][1], "tokens/s"))
    alone = answers["transformers"]
    results += [(name, f"{way}: equal", equal(answers[way], alone), "share") for way in WAYS]
    return results + [(name, f"{way}: peak above", in_a_process(given, way), "MB") for way in WAYS]


def main():
    parser = argparse.ArgumentParser(description="Several questions on one video, together and one by one.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    parser.add_argument("--memory", choices=WAYS, help="print the peak of one way and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        case = Case(given.questions, given.frames, given.tokens)
        print(peak_of(lambda: case.run(given.memory)))
        return
    tell(measure(given), as_json=given.json)


if __name__ == "__main__":
    main()
