"""The chunked loss against plain cross entropy: memory above inputs and gradients, speed on one CPU core.

    python benchmarks/loss.py [--json] [--targets 4000] [--timed 512]

A row of 16,384 hidden states of width 1,024 and a vocabulary of 151,936 words, in fp32. Memory is measured
at `--targets`, each way in a process of its own; time at `--timed`, where all logits fit, forward and
backward, the best of three in turns.
"""

import argparse
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from figures import peak_of, tell
from hedgerow.train.chunks import summed_loss
from hedgerow.weights.dynamic import Entropy, Prediction

TOKENS, WIDTH, WORDS = 16_384, 1_024, 151_936
WAYS = ("chunked", "chunked, by entropy", "plain")


class Case:
    """Hidden states, targets and weights of a row, and the head."""

    def __init__(self, targets, width=WIDTH):
        torch.manual_seed(0)
        self.head = nn.Linear(width, WORDS, bias=False)
        self.hidden = torch.randn(TOKENS, width, requires_grad=True)
        self.source = torch.arange(targets) * (TOKENS // targets)
        self.target = torch.randint(0, WORDS, (targets,))
        self.weight = torch.rand(targets)

    def run(self, way):
        """Make the loss and its gradients."""
        self.head.weight.grad = self.hidden.grad = None
        picked = self.hidden.index_select(0, self.source)
        if way == "plain":
            loss = (self.weight * F.cross_entropy(self.head(picked), self.target, reduction="none")).sum()
        else:
            entropy = way != "chunked"
            weigh = self.by_entropy if entropy else lambda part, _: self.weight[part]
            loss, _, _ = summed_loss(picked, self.target, self.head, weigh, entropy=entropy)
        loss.backward()
        return float(loss.detach())

    def by_entropy(self, part, seen):
        """Weigh by the entropy of the prediction."""
        weight = self.weight[part]
        return weight * Entropy()(Prediction(seen.ce, seen.entropy, None, weight, weight))

    def megabytes(self):
        """Gradients of what the loss was given."""
        return 4 * (self.head.weight.numel() + self.hidden.numel()) / 1e6


def peak_above(targets, way, width):
    """Return the peak of a run in MB, above what was there before and the gradients."""
    case = Case(targets, width)
    torch.ones(64, 64) @ torch.ones(64, 64)  # loads the kernels
    return peak_of(lambda: case.run(way)) - case.megabytes()


def times(targets, repeats=3):
    """Return the best CPU seconds of each way; ways take turns, for the machine has moods."""
    case, found = Case(targets), {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            start = time.process_time()
            case.run(way)
            found[way].append(time.process_time() - start)
    return {way: min(seconds) for way, seconds in found.items()}


def in_a_process(targets, way):
    command = [sys.executable, __file__, "--memory", str(targets), "--way", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description="The chunked loss against plain cross entropy.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--targets", type=int, default=4_000, help="targets where memory is measured")
    parser.add_argument("--timed", type=int, default=512, help="targets where time is measured")
    parser.add_argument("--memory", type=int, help="print the peak at that many targets and nothing else")
    parser.add_argument("--way", default=WAYS[0], choices=WAYS, help="of --memory")
    parser.add_argument("--width", type=int, default=WIDTH, help="of --memory")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(peak_above(given.memory, given.way, given.width))
        return
    case = f"{given.targets} targets"
    results = [(case, f"{way}: above inputs", in_a_process(given.targets, way), "MB") for way in WAYS[:2]]
    seconds, case = times(given.timed), f"{given.timed} targets"
    results += [(case, way, value, "s") for way, value in seconds.items()]
    results += [(case, f"{way} / plain", seconds[way] / seconds["plain"], "ratio") for way in WAYS[:2]]
    tell(results, as_json=given.json)


if __name__ == "__main__":
    main()
