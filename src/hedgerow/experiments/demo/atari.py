"""The emulator's side of the recorder: plays, and writes what it saw to standard output.

Runs in a process of its own, `python -m hedgerow.experiments.demo.atari GAME`, because ale-py is under the
GPL: nothing of hedgerow imports this module. Each line on standard input asks for clips (`Request`); for each
clip the answer is one line of JSON (boxes of each frame, palette) and then the frames, one byte a pixel.
"""

import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray

from hedgerow.experiments.demo.games import GAMES, HEIGHT, WIDTH, Box, Game

WARM_UP = 64
NEAR = 3.0
GLIDE = 4
RETURNING = 0.8
Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Policy:
    """How the joystick moves: the mix of moods and how long each lasts.

    `roam` is the share of moods that go to a random place, `follow` of those that stay with the target; in
    the rest one random button is held. `hold` bounds how long a mood lasts in emulator steps, `noise` is how
    far from the target it aims in pixels (standard deviation), `serve` the chance a step to bring a lost ball
    back, `fire` to punch.
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
    """`clips` clips of one play, of `frames` frames that are `every` emulator steps apart.

    `sampled` are the frames of a clip that questions ask about.
    """

    seed: int
    policy: str
    clips: int
    frames: int
    every: int
    sampled: tuple[int, ...]

    @property
    def slot(self) -> int:
        """Frames of the play in which one clip finds its place: the clip and a pause half as long."""
        return self.frames + max(1, self.frames // 2)


class Console:
    """One emulator for each mode of a game, set back to its first moment for every play."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self._ready = {mode: self._boot(mode) for mode in game.modes}

    def _boot(self, mode: int) -> tuple[ALEInterface, Any]:
        emulator = ALEInterface()
        emulator.setFloat("repeat_action_probability", 0.0)
        emulator.loadROM(roms.get_rom_path(self.game.name))
        emulator.setMode(mode)
        emulator.reset_game()
        return emulator, emulator.cloneSystemState()

    def start(self, mode: int) -> ALEInterface:
        """The emulator at the start of a game; a plain reset would carry traces of the play before."""
        emulator, state = self._ready[mode]
        emulator.restoreSystemState(state)
        return emulator


class Player:
    """Chooses a joystick action from what is on the screen."""

    def __init__(self, game: Game, policy: Policy, actions: list[Action], rng: np.random.Generator) -> None:
        self.game, self.policy, self.rng = game, policy, rng
        self.actions = {action.name: action for action in actions}
        self.here: Place = (0.0, 0.0)
        self._turn()

    def choose(self, boxes: dict[str, Box]) -> Action:
        """The action for the next step."""
        if self.left == 0:
            self._turn()
        self.left -= 1
        if self.game.serve and self.game.target not in boxes and self.rng.random() < self.policy.serve:
            return self.actions["FIRE"]
        hero = boxes.get(self.game.hero)
        if self.mood == "mash" or hero is None:
            return self.pressed
        before, self.here = self.here, _centre(hero)
        # A paddle glides on: steer for where it will be.
        ahead = [here + GLIDE * (here - there) for here, there in zip(self.here, before, strict=True)]
        aim = self._aim(boxes)
        return self._steer(aim[0] - ahead[0], aim[1] - ahead[1])

    def _turn(self) -> None:
        """Change the mood."""
        policy, field = self.policy, self.game.field
        draw = self.rng.random()
        moods = (("roam", policy.roam), ("follow", policy.roam + policy.follow), ("mash", 1.0))
        self.mood = next(mood for mood, share in moods if draw < share)
        self.left = int(self.rng.integers(*policy.hold))
        self.goal = (self.rng.uniform(field[0], field[2]), self.rng.uniform(field[1], field[3]))
        self.offset = self.rng.normal(0.0, policy.noise, 2)
        self.pressed = list(self.actions.values())[self.rng.integers(len(self.actions))]

    def _aim(self, boxes: dict[str, Box]) -> Place:
        target = boxes.get(self.game.target or "")
        if self.mood == "roam" or target is None:
            return self.goal
        x, y = _centre(target)
        return x + self.offset[0], y + self.offset[1]

    def _steer(self, dx: float, dy: float) -> Action:
        if self.game.upright:
            dx, dy = -dy, 0.0
        across = "RIGHT" if dx > NEAR else "LEFT" if dx < -NEAR else ""
        along = "DOWN" if dy > NEAR else "UP" if dy < -NEAR else ""
        fire = "FIRE" if not self.game.serve and self.rng.random() < self.policy.fire else ""
        names = (along + across + fire, along + across, across, along, "NOOP")
        return next(self.actions[name] for name in names if name in self.actions)


def _centre(box: Box) -> Place:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


class Tape:
    """What was kept of one play: screens as colour numbers, the boxes of each, and the colours."""

    def __init__(self) -> None:
        self.screens: list[NDArray[np.uint8]] = []
        self.boxes: list[dict[str, Box]] = []
        self.palette = np.zeros((256, 3), np.uint8)
        self._known = np.zeros(256, bool)

    def keep(self, emulator: ALEInterface, boxes: dict[str, Box]) -> None:
        """Add the screen as it is now."""
        screen = np.array(emulator.getScreen(), np.uint8).reshape(HEIGHT, WIDTH)
        new = (np.bincount(screen.ravel(), minlength=256) > 0) & ~self._known
        if new.any():
            self.palette[screen.ravel()] = emulator.getScreenRGB().reshape(-1, 3)
            self._known |= new
        self.screens.append(screen)
        self.boxes.append(boxes)


def play(console: Console, request: Request) -> tuple[Tape, np.random.Generator]:
    """One play, long enough for the clips asked for."""
    game = console.game
    rng = np.random.default_rng([request.seed, zlib.crc32(request.policy.encode())])
    emulator = console.start(int(rng.choice(game.modes)))
    player = Player(game, POLICIES[request.policy], emulator.getMinimalActionSet(), rng)
    first = WARM_UP + int(rng.integers(game.skip))
    tape, memory = Tape(), emulator.getRAM().tolist()
    boxes = game.locate(memory, memory)
    for step in range(first + request.clips * request.slot * request.every):
        emulator.act(player.choose(boxes))
        if emulator.game_over():
            emulator.reset_game()
        before, memory = memory, emulator.getRAM().tolist()
        boxes = game.locate(memory, before)
        if step >= first and (step - first) % request.every == 0:
            tape.keep(emulator, boxes)
    return tape, rng


def starts(game: Game, tape: Tape, request: Request, rng: np.random.Generator) -> Iterator[int]:
    """Where each clip starts: one in each slot, in motion, often where something leaves and returns."""
    for first in range(0, request.clips * request.slot, request.slot):
        places = [first + int(shift) for shift in rng.permutation(request.slot - request.frames + 1)]
        seen = {place: [tape.boxes[place + frame] for frame in request.sampled] for place in places}
        live = [place for place in places if _moves(seen[place])] or places
        back = [place for place in live if any(_returns(seen[place], label) for label in game.labels)]
        yield back[0] if back and rng.random() < RETURNING else live[0]


def _moves(boxes: list[dict[str, Box]]) -> bool:
    return any(boxes[0].get(label) != boxes[-1].get(label) for label in {*boxes[0], *boxes[-1]})


def _returns(boxes: list[dict[str, Box]], label: str) -> bool:
    seen = [index for index, frame in enumerate(boxes) if label in frame]
    return bool(seen) and seen[-1] - seen[0] >= len(seen)


def answer(console: Console, request: Request, out: BinaryIO) -> None:
    """Write the clips of one request."""
    tape, rng = play(console, request)
    for start in starts(console.game, tape, request, rng):
        window = slice(start, start + request.frames)
        head = {"boxes": tape.boxes[window], "palette": tape.palette.ravel().tolist()}
        out.write(json.dumps(head).encode() + b"\n")
        out.write(np.stack(tape.screens[window]).tobytes())
    out.flush()


def main() -> None:
    """Answer the requests on standard input."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    console = Console(GAMES[sys.argv[1]])
    # Read every request first: the other side writes them all before it reads an answer.
    for line in sys.stdin.readlines():
        fields = json.loads(line)
        answer(console, Request(**{**fields, "sampled": tuple(fields["sampled"])}), sys.stdout.buffer)


if __name__ == "__main__":
    main()
