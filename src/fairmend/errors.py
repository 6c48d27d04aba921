"""The exceptions fairmend raises for its callers.

FairmendError
├── InputError      an option, array or combination of them cannot work
│   ├── ModelError  a network cannot be read, or cannot be repaired
│   └── DataError   a table, column, label, group or split is unusable
├── RunError        a run directory or store is unusable, or belongs to another run
└── ArtifactError   a download or an archive is missing, damaged or unsafe

Every message says what was wrong, the value, what is allowed and what to do next.
"""


class FairmendError(Exception):
    """Base of everything fairmend raises on purpose. The command line prints it and exits with code 2."""


class InputError(FairmendError, ValueError):
    """An argument cannot work. Change the value that the message names."""


class ModelError(InputError):
    """A network cannot be read or repaired. The message names the module or file and what is supported."""


class DataError(InputError):
    """A data set cannot be used. The message names the column, row or group and what is needed."""


class RunError(FairmendError, RuntimeError):
    """A run directory or its store cannot be used. Choose another directory, or resume the run that owns it."""


class ArtifactError(FairmendError, RuntimeError):
    """A download or archive is missing or damaged. The message says what to fetch and where to put it."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, and the next where it only announces it: those of libraries are long."""
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
