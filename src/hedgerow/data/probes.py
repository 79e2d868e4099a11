"""Media of others are read in a child process: what kills a decoder is then told like any other fault.

A file may crash its decoder, keep it busy for ever, or make it ask for all memory there is. None of this can
be caught where it happens, so it happens in a child that may die: the kernel ends it when its time is up, and
grants it no more memory than it may have.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from hedgerow.content import Media
from hedgerow.errors import MediaError
from hedgerow.vision.facts import Facts, probe
from hedgerow.vision.processor import Molmo2Processor, VisionProcessor

SECONDS = 10.0  # to look a file up, and again to read it
MEMORY = 2**30  # bytes of a child
_PROGRAM = "from hedgerow.data.probes import serve; serve()"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of looking at one image or video.

    Attributes:
        kind: `read`; `refused` with a MediaError; `crashed` by a signal, or by an error that nobody expects;
            `hung`, its time being up; or `memory`, wanting more of it than allowed.
        facts: of the file, if it was read.
        reason: what is wrong and what to do, beginning with the name; empty if it was read.
        peak: the most memory in bytes that was resident in the child since it started. If the child died, it
            may be stated too large, by Linux: as what the calling process had resident then.
    """

    kind: Literal["read", "refused", "crashed", "hung", "memory"]
    facts: Facts | None
    reason: str
    peak: int


class Prober:
    """A child process that looks at media, one after another; another one is started when it dies.

    The kernel holds the limits: that of time on every POSIX system, that of memory (private data, without the
    code of libraries) on Linux. Use it as a context, or close it.

    Args:
        seconds: how long it may take to look a file up, and again to read its pixels.
        memory: bytes that the child may hold.
    """

    def __init__(self, *, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self._seconds = seconds
        self._memory = memory
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None

    def look(
        self,
        media: Media,
        processor: VisionProcessor | None = None,
        *,
        facts: Facts | None = None,
        longer: float = 0.0,
    ) -> Outcome:
        """Look at one image or video.

        Args:
            media: filled by its processor, see `VisionProcessor.filled`.
            processor: also reads the pixels that a model would see; None: they are left alone.
            facts: of the file, if they are known; otherwise they are looked up.
            longer: seconds that this look may take beyond the others.
        """
        channel = self._started()
        try:
            channel.send((media, processor, facts, self._seconds + longer))
            outcome: Outcome = channel.recv()
        except (EOFError, ConnectionError):
            return self._died(media.name, self._seconds + longer)
        if outcome.peak > self._memory // 2:
            self.close()  # what it still holds would count against the next file
        return outcome

    def close(self) -> None:
        """End the child."""
        if self._channel is not None and self._child is not None:
            self._channel.close()  # it goes when nobody is left to ask
            self._child.wait()
        self._child = self._channel = None

    def __enter__(self) -> "Prober":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Connection:
        if self._channel is None:
            ours, theirs = Pipe()
            # Not from the working directory (-P): a file there must not stand in for a module.
            command = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), str(self._memory)]
            quiet = subprocess.DEVNULL
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._child = subprocess.Popen(
                command,
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                pass_fds=[theirs.fileno()],
                env=os.environ | threads,
            )
            theirs.close()
            self._channel = ours
        return self._channel

    def _died(self, name: str, seconds: float) -> Outcome:
        """Say of what the child died."""
        assert self._child is not None
        assert self._channel is not None
        self._channel.close()
        _, status, usage = os.wait4(self._child.pid, 0)
        code = self._child.returncode = os.waitstatus_to_exitcode(status)
        self._child = self._channel = None
        peak = _resident(usage)
        if code == -signal.SIGALRM:
            reason = f"{name}: not read within {seconds:g} s; leave it out, or encode it again"
            return Outcome("hung", None, reason, peak)
        died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = f"{name}: its decoder crashes ({died}); leave it out, or encode it again"
        return Outcome("crashed", None, reason, peak)


def probe_apart(
    media: Media, *, decode: bool = True, seconds: float = SECONDS, memory: int = MEMORY
) -> Outcome:
    """Look at one image or video in a child process of its own, as Molmo2 would see it.

    Args:
        media: any.
        decode: whether to read its pixels too.
        seconds: as for `Prober`.
        memory: bytes that the child may hold.
    """
    processor = Molmo2Processor()
    with Prober(seconds=seconds, memory=memory) as prober:
        return prober.look(processor.filled(media), processor if decode else None)


def serve() -> None:
    """Be the child: answer until nobody is left to ask."""
    number, memory = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Connection(number) as channel:
        while True:
            try:
                media, processor, facts, seconds = channel.recv()
            except EOFError:
                return
            channel.send(_look(media, processor, facts, seconds))


def _look(media: Media, processor: VisionProcessor | None, facts: Facts | None, seconds: float) -> Outcome:
    try:
        with _limit(seconds):
            facts = facts or probe(media)
        if processor is not None:
            # Reads no file, but may have to load what it needs, for which the media are not to blame.
            layout = processor.layout(media, facts, label=None)
            with _limit(seconds):
                processor.visual(media, layout)
    except (MemoryError, MediaError) as error:
        if not _wants_memory(error):
            return Outcome("refused", None, str(error), _peak())
        most = resource.getrlimit(resource.RLIMIT_DATA)[0] / 2**20
        reason = f"{media.name}: reading it takes more than {most:,.0f} MB; make it smaller"
        return Outcome("memory", None, reason, _peak())
    except Exception as error:  # a fault of a decoder's, or of ours: either way this file cannot be used
        reason = f"{media.name}: its decoder fails ({type(error).__name__}: {error}); leave it out"
        return Outcome("crashed", None, reason, _peak())
    return Outcome("read", facts, "", _peak())


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """End this process if what is done takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _wants_memory(error: BaseException | None) -> bool:
    """Whether an error came of too little memory, though another may have been raised in its place."""
    return error is not None and (isinstance(error, MemoryError) or _wants_memory(error.__context__))


def _peak() -> int:
    """The most memory that was resident in this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) * 1024
    return _resident(resource.getrusage(resource.RUSAGE_SELF))


def _resident(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
