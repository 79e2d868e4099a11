"""The emulator's side of the recorder: plays, and writes what it saw to standard output.

Runs in a process of its own, `python -m hedgerow.experiments.demo.atari GAME`, because ale-py is under the GPL: nothing
of hedgerow imports this module. Each line on standard input asks for clips (`Request`); for each clip the answer is one
line of JSON and then the frames, one byte a pixel.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms

from hedgerow.experiments.demo.games import GAMES, Box, Game

WARM_UP = 64


@dataclass(frozen=True, slots=True)
class Policy:
    """How the joystick moves: the mix of moods and how long each lasts.

    `roam` goes to a random place, `follow` stays with the target, `mash` presses at random (the rest of the
    probability). `hold` is how long a mood lasts in emulator steps, `noise` how far from the target it aims in pixels,
    `serve` the chance per step to bring a lost ball back, `fire` to punch or shoot.
    """

    roam: float
    follow: float
    hold: tuple[int, int]
    noise: float
    serve: float = 0.02
    fire: float = 0.1


POLICIES = {
    "roam": Policy(roam=1.0, follow=0.0, hold=(15, 60), noise=0.0),
    "follow": Policy(roam=0.3, follow=0.7, hold=(20, 70), noise=12.0),
    "mash": Policy(roam=0.3, follow=0.0, hold=(6, 40), noise=0.0, serve=0.05),
    "chase": Policy(roam=0.5, follow=0.5, hold=(30, 90), noise=20.0, fire=0.2),
    "wander": Policy(roam=0.7, follow=0.1, hold=(10, 45), noise=30.0, serve=0.04, fire=0.05),
}


@dataclass(frozen=True, slots=True)
class Request:
    """`clips` clips of one play: `frames` frames each, `every` emulator steps apart; `sampled` frames matter most."""

    seed: int
    policy: str
    clips: int
    frames: int
    every: int
    sampled: tuple[int, ...]


class Player:
    """Chooses a joystick action from what is on the screen."""

    def __init__(self, game: Game, policy: Policy, actions: list[Action], rng: np.random.Generator) -> None:
        self.game, self.policy, self.rng = game, policy, rng
        self.actions = {action.name: action for action in actions}
        self.left, self.last = 0, (0.0, 0.0)

    def choose(self, boxes: dict[str, Box]) -> Action:
        """The action for the next step."""
        if self.left == 0:
            self._turn()  # sets mood, goal, offset and pressed
        self.left -= 1
        target = self.game.target
        if self.game.serve and target not in boxes and self.rng.random() < self.policy.serve:
            return self.actions["FIRE"]
        if self.mood == "mash":
            return self.pressed
        hero = boxes.get(self.game.hero)
        if hero is None:
            return self.actions["NOOP"]
        return self._steer(_centre(hero), self._aim(boxes))

    def _turn(self) -> None:
        policy, field = self.policy, self.game.field
        draw = self.rng.random()
        self.mood = "roam" if draw < policy.roam else "follow" if draw < policy.roam + policy.follow else "mash"
        self.left = int(self.rng.integers(*policy.hold))
        self.goal = (self.rng.uniform(field[0], field[2]), self.rng.uniform(field[1], field[3]))
        self.offset = self.rng.normal(0.0, policy.noise, 2)
        self.pressed = list(self.actions.values())[self.rng.integers(len(self.actions))]

    def _aim(self, boxes: dict[str, Box]) -> tuple[float, float]:
        target = boxes.get(self.game.target or "")
        if self.mood == "roam" or target is None:
            return self.goal
        x, y = _centre(target)
        return x + self.offset[0], y + self.offset[1]

    def _steer(self, here: tuple[float, float], aim: tuple[float, float]) -> Action:
        # A paddle glides on: steer for where it will be in four steps.
        speed = (here[0] - self.last[0], here[1] - self.last[1])
        self.last = here
        dx, dy = aim[0] - here[0] - 4 * speed[0], aim[1] - here[1] - 4 * speed[1]
        if self.game.upright:
            dx, dy = -dy, 0.0
        across = "RIGHT" if dx > 3 else "LEFT" if dx < -3 else ""
        along = "DOWN" if dy > 3 else "UP" if dy < -3 else ""
        fire = "FIRE" if self.rng.random() < self.policy.fire and not self.game.serve else ""
        for name in (along + across + fire, along + across, across, along):
            if name in self.actions:
                return self.actions[name]
        return self.actions["NOOP"]


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _emulator(game: Game, *, seed: int, mode: int) -> ALEInterface:
    emulator = ALEInterface()
    emulator.setInt("random_seed", seed)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(roms.get_rom_path(game.name))
    emulator.setMode(mode)
    emulator.reset_game()
    return emulator


class Tape:
    """What was kept of one play: every `every`-th screen, as colour numbers, with its boxes."""

    def __init__(self) -> None:
        self.screens: list[np.ndarray] = []
        self.boxes: list[dict[str, Box]] = []
        self.palette = np.zeros((256, 3), np.uint8)

    def keep(self, emulator: ALEInterface, boxes: dict[str, Box]) -> None:
        """Add the screen as it is now."""
        screen = emulator.getScreen().copy()
        self.palette[screen.ravel()] = emulator.getScreenRGB().reshape(-1, 3)
        self.screens.append(screen)
        self.boxes.append(boxes)


def play(game: Game, request: Request) -> tuple[Tape, np.random.Generator]:
    """One play, long enough for the clips asked for with a pause before each."""
    rng = np.random.default_rng([request.seed, sorted(POLICIES).index(request.policy)])
    emulator = _emulator(game, seed=request.seed, mode=int(rng.choice(game.modes)))
    player = Player(game, POLICIES[request.policy], emulator.getMinimalActionSet(), rng)
    slot = request.frames + _pause(request)
    warm = WARM_UP + int(rng.integers(game.skip))
    tape, memory = Tape(), emulator.getRAM().tolist()
    boxes = game.locate(memory, memory)
    for step in range(warm + request.clips * slot * request.every):
        emulator.act(player.choose(boxes))
        if emulator.game_over():
            emulator.reset_game()
        before, memory = memory, emulator.getRAM().tolist()
        boxes = game.locate(memory, before)
        if step >= warm and (step - warm) % request.every == 0:
            tape.keep(emulator, boxes)
    return tape, rng


def _pause(request: Request) -> int:
    return max(1, request.frames // 2)


def _returns(boxes: list[dict[str, Box]], label: str) -> bool:
    seen = [index for index, frame in enumerate(boxes) if label in frame]
    return bool(seen) and seen[-1] - seen[0] >= len(seen)


def _moves(boxes: list[dict[str, Box]]) -> bool:
    return any(boxes[0].get(label) != boxes[-1].get(label) for label in set(boxes[0]) | set(boxes[-1]))


def starts(game: Game, tape: Tape, request: Request, rng: np.random.Generator) -> Iterator[int]:
    """Where each clip starts: one in each stretch of the tape, often where something leaves and returns."""
    slot = request.frames + _pause(request)
    for first in range(0, request.clips * slot, slot):
        places = [first + int(shift) for shift in rng.permutation(slot - request.frames + 1)]
        seen = {at: [tape.boxes[at + frame] for frame in request.sampled] for at in places}
        live = [at for at in places if _moves(seen[at])] or places
        back = [at for at in live if any(_returns(seen[at], label) for label in game.labels)]
        yield back[0] if back and rng.random() < 0.8 else live[0]


def answer(game: Game, request: Request, out: BinaryIO) -> None:
    """Write the clips of one request."""
    tape, rng = play(game, request)
    for start in starts(game, tape, request, rng):
        window = slice(start, start + request.frames)
        head: dict[str, Any] = {"boxes": tape.boxes[window], "palette": tape.palette.ravel().tolist()}
        out.write(json.dumps(head).encode() + b"\n")
        out.write(np.stack(tape.screens[window]).tobytes())
    out.flush()


def main() -> None:
    """Answer requests until standard input closes."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    game = GAMES[sys.argv[1]]
    # Read every request first: the other side writes them all before it reads an answer.
    for line in sys.stdin.readlines():
        fields = json.loads(line)
        answer(game, Request(**{**fields, "sampled": tuple(fields["sampled"])}), sys.stdout.buffer)


if __name__ == "__main__":
    main()
