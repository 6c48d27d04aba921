"""Ctrl-C and its kin, answered from the first import to the last.

SIGTERM (a machine that shuts down, a batch system's time limit) and SIGHUP (a terminal that closes) do what Ctrl-C
does: everything measured is kept. There are three times. Before a command works there is nothing to save, so that a
signal ends the process at once. While it works, a signal is a `KeyboardInterrupt`, which every command answers. Once it
is done, its result is there and a signal has nothing left to stop.

Little is imported here: until `watch` runs, Python answers Ctrl-C with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # see fairmend/__init__.py

if TYPE_CHECKING:
    from types import FrameType
    from typing import Literal

    UnraisableHookArgs = sys.UnraisableHookArgs

INTERRUPTED = 130  # what commands end with after Ctrl-C, whichever signal it was
_ABORTED = 1  # what the parser of the command line makes of one that no command caught
_TRY_AGAIN = 0.01  # seconds

_time: Literal["not watched", "before", "at work", "after"] = "not watched"
_seen: int | None = None


def at_work() -> None:
    """From here on a signal is a `KeyboardInterrupt`. Does nothing where fairmend is not the process's own program."""
    if _time == "before":
        _enter("at work")


def watch() -> None:
    """From here on signals are answered."""
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background process
            signal.signal(number, _answer)
    sys.unraisablehook = _again
    _enter("before")


def was_seen() -> bool:
    """Whether a signal has come."""
    return _seen is not None


def done(code: object) -> object:
    """The work is over and a signal changes nothing any more; the exit code, which may be that of a signal."""
    _enter("after")
    return 128 + _seen if _seen is not None and code in (INTERRUPTED, _ABORTED) else code


def _enter(time: Literal["before", "at work", "after"]) -> None:
    global _time  # noqa: PLW0603 - a process has one state of signals
    _time = time
    if time == "after":  # Python takes its handlers back before it ends, but leaves a signal ignored
        for number in _numbers():
            signal.signal(number, signal.SIG_IGN)


def _numbers() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM") if sys.platform == "win32" else ("SIGINT", "SIGTERM", "SIGHUP")
    return [signal.Signals[name] for name in names]


def _answer(number: int, frame: FrameType | None) -> None:
    global _seen  # noqa: PLW0603
    if _time == "after":
        return
    _seen = number
    if _time == "at work":
        raise KeyboardInterrupt
    say("Stopped before there was anything to save.\n")
    os._exit(128 + number)


def say(text: str) -> None:
    """Write to standard error, whether or not anybody listens."""
    try:
        os.write(2, text.encode())
    except OSError:  # nobody listens
        return


def _again(lost: UnraisableHookArgs) -> None:
    """Raise a `KeyboardInterrupt` again that struck where Python can only print it, such as in a finaliser."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    from threading import Timer

    timer = Timer(_TRY_AGAIN, signal.raise_signal, [_seen or signal.SIGINT])
    timer.daemon = True
    timer.start()
