"""Where the command `fairmend` begins. Little is imported here, so that signals are answered as early as can be."""

from __future__ import annotations

from fairmend.cli import signals


def main() -> None:
    """Run the command line. Exit code 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP."""
    signals.watch()
    code: object = 0
    try:
        from fairmend.cli.main import main as run

        run()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = signals.INTERRUPTED
    except Exception:
        if not signals.was_seen():
            raise
        signals.say("Stopped while a library was at work. What was measured is kept.\n")  # it made an error of it
        code = signals.INTERRUPTED
    raise SystemExit(signals.done(code))
