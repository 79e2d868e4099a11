"""Where things are on the screen of five Atari games, read from the console's 128 bytes of memory.

Boxes are pixels of the 160 x 210 screen, half open, clipped to what is drawn; a thing of which less than 2 px
is drawn, in either direction, is not visible and has no box. A box is the extent of the thing's colour on the
screen, but for two cases: a boxer who was just hit shakes by 2 px, and a thing behind another one keeps its
whole box.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 160, 210
SLIVER = 2
Box = tuple[int, int, int, int]
Memory = Sequence[int]


@dataclass(frozen=True, slots=True)
class Kind:
    """Things that one word names: `many` is its plural, `labels` the things.

    `halves` are the halves of the frame between which they move; without any, only their number is asked for.
    """

    many: str
    labels: tuple[str, ...]
    halves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Game:
    """A game: what can be named in it and where it is.

    `locate(memory, before)` gives the box of every visible thing on the frame after which `memory` was read;
    `before` is the memory one frame earlier. `hero` is what the joystick moves, inside `field`; `target` is
    what a player follows. `serve` says that the fire button brings the target back, `upright` that turning
    the knob right goes up. A play is in one of `modes` of the cartridge and is watched after up to `skip`
    emulator steps.
    """

    name: str
    title: str
    kinds: tuple[Kind, ...]
    hero: str
    target: str | None
    field: Box
    locate: Callable[[Memory, Memory], dict[str, Box]]
    serve: bool = False
    upright: bool = False
    modes: tuple[int, ...] = (0,)
    skip: int = 120

    @property
    def labels(self) -> tuple[str, ...]:
        """Every thing that can be named, in the order of the table."""
        return tuple(label for kind in self.kinds for label in kind.labels)


def _clip(box: Box, field: Box) -> Box | None:
    left, top = max(box[0], field[0]), max(box[1], field[1])
    right, bottom = min(box[2], field[2]), min(box[3], field[3])
    return (left, top, right, bottom) if right - left >= SLIVER and bottom - top >= SLIVER else None


def _seen(boxes: dict[str, Box], field: Box) -> dict[str, Box]:
    clipped = {label: _clip(box, field) for label, box in boxes.items()}
    return {label: box for label, box in clipped.items() if box is not None}


PONG_FIELD = (0, 34, 160, 194)


def _pong(memory: Memory, before: Memory) -> dict[str, Box]:
    del before
    # The green paddle is drawn in steps of two lines, the orange one is not.
    green = memory[51] - 14 + memory[51] % 2
    orange = memory[50] - 15
    boxes = {"green paddle": (140, green, 144, green + 16), "orange paddle": (16, orange, 20, orange + 16)}
    if memory[54]:
        # On the right the screen is drawn too late for odd lines: they come out one line higher.
        x, y = memory[49] - 49, memory[54] - 14 - (memory[49] >= 180 and memory[54] % 2)
        boxes["ball"] = (x, y, x + 2, y + 4)
    return _seen(boxes, PONG_FIELD)


BOXING_FIELD = (32, 36, 128, 177)


def _boxer(x: int, y: int, upper: int, lower: int, *, right: bool) -> Box:
    """Box of a boxer at (x, y); `upper` and `lower` say how far each arm is stretched."""
    longest = max(upper, lower)
    bent = min(upper, lower) >= 0x08 and longest < 0x20
    reach = 35 if longest >= 0x40 else 26 if longest >= 0x30 else 17 if bent else 19
    left, end = (x + 5, x + reach) if right else (x + 22 - reach - (reach > 19), x + 17)
    sink = 38 if right else 37
    return left, y + sink + (upper >= 0x30), end, y + sink + 47 - (lower >= 0x30)


def _boxing(memory: Memory, before: Memory) -> dict[str, Box]:
    del before
    facing = memory[32] <= memory[33]
    white = _boxer(memory[32], memory[34], memory[55], memory[57], right=facing)
    black = _boxer(memory[33], memory[35], memory[59], memory[61], right=not facing)
    return _seen({"white boxer": white, "black boxer": black}, BOXING_FIELD)


BREAKOUT_FIELD = (8, 32, 152, 196)


def _breakout(memory: Memory, before: Memory) -> dict[str, Box]:
    del before
    paddle = memory[72] - 47
    boxes = {"paddle": (paddle, 189, paddle + 16, 193)}
    if memory[101]:
        x, y = memory[99] - 49, memory[101] + 9
        boxes["ball"] = (x, y, x + 2, y + 4)
    return _seen(boxes, BREAKOUT_FIELD)


FREEWAY_FIELD = (8, 14, 160, 195)
CARS = (
    "maroon car", "lime car", "olive car", "pink car", "navy car",
    "brown car", "blue car", "red car", "green car", "yellow car",
)  # fmt: skip


def _freeway(memory: Memory, before: Memory) -> dict[str, Box]:
    bottom = 201 - memory[14]
    boxes = {"left chicken": (44, bottom - 8, 50, bottom), "right chicken": (108, 180, 114, 188)}
    for lane, label in enumerate(CARS):
        # The upper five lanes are drawn before the game moves their cars, the lower five after.
        x = ((before if lane < 5 else memory)[117 - lane] - 3) % WIDTH
        boxes[label] = (x, 28 + 16 * lane, x + 8, 36 + 16 * lane)
    return _seen(boxes, FREEWAY_FIELD)


def _racket(x: int, y: int, left: int, right: int) -> Box:
    """Box of a tennis player at (x, y); `left` and `right` name the pictures of its two halves."""
    start = {132: 2, 108: -1, 74: 1}.get(left, -2)
    end = {132: 10, 74: 11, 108: 13}.get(right, 14)
    return x + start, y, x + end, y + 23


TENNIS_FIELD = (0, 0, 160, 210)


def _tennis(memory: Memory, before: Memory) -> dict[str, Box]:
    del before
    far = _racket(memory[26], 166 - memory[24], memory[30], memory[28])
    near = _racket(memory[27], 167 - memory[25], memory[31], memory[29])
    # The players change ends.
    pink, blue = (near, far) if memory[80] else (far, near)
    return _seen({"pink player": pink, "blue player": blue}, TENNIS_FIELD)


ACROSS, ALONG = ("left", "right"), ("upper", "lower")
PONG = Game(
    name="pong",
    title="Pong",
    kinds=(Kind("paddles", ("green paddle", "orange paddle"), ALONG), Kind("balls", ("ball",))),
    hero="green paddle",
    target="ball",
    field=(140, 40, 144, 188),
    locate=_pong,
    upright=True,
)
BOXING = Game(
    name="boxing",
    title="Boxing",
    kinds=(Kind("boxers", ("white boxer", "black boxer"), ACROSS + ALONG),),
    hero="white boxer",
    target="black boxer",
    field=BOXING_FIELD,
    locate=_boxing,
)
BREAKOUT = Game(
    name="breakout",
    title="Breakout",
    kinds=(Kind("paddles", ("paddle",), ACROSS), Kind("balls", ("ball",))),
    hero="paddle",
    target="ball",
    field=(8, 189, 152, 193),
    locate=_breakout,
    serve=True,
)
TENNIS = Game(
    name="tennis",
    title="Tennis",
    kinds=(Kind("players", ("pink player", "blue player"), ACROSS + ALONG),),
    hero="pink player",
    target="blue player",
    field=(20, 20, 140, 180),
    locate=_tennis,
    skip=1500,
)
# The cars go by the clock, whatever the player does: only other modes and other moments show other traffic.
FREEWAY = Game(
    name="freeway",
    title="Freeway",
    kinds=(Kind("cars", CARS, ACROSS), Kind("chickens", ("left chicken", "right chicken"), ALONG)),
    hero="left chicken",
    target=None,
    field=(44, 20, 50, 190),
    locate=_freeway,
    modes=(0, 4),
    skip=4000,
)
GAMES = {game.name: game for game in (PONG, BOXING, BREAKOUT, TENNIS, FREEWAY)}
