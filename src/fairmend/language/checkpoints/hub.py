"""Repositories of Hugging Face, out of the cache or fetched into it: never code or pickles that nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairmend.artifacts import UNWRITABLE
from fairmend.errors import ArtifactError, ModelError, first_line


def fetch_snapshot(name: str, revision: str | None, files: Sequence[str], allowed: str, by_hand: str) -> Path:
    """The folder with a repository's files of these patterns at its top level.

    Args:
        name: owner/name.
        revision: branch, tag or commit.
        files: patterns of names.
        allowed: what could be named instead, for messages.
        by_hand: how to fetch it by hand, for messages.

    Raises:
        ModelError: `name` cannot be an id of the hub, or there is no such repository or revision.
        ArtifactError: neither cached nor reachable, or the cache cannot be written.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=list(files), ignore_patterns=["*/*", "consolidated*"]
            )
        )
    except errors.HFValidationError as error:
        raise ModelError(f"{name!r} cannot be a Hugging Face id ({first_line(error)}): {allowed}") from error
    except errors.GatedRepoError as error:
        raise ArtifactError(
            f"{name} is gated: accept its terms on its page and log in with `hf auth login`. {by_hand}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision {revision!r}: leave it out, or name a branch, tag or commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is neither a directory here nor a public Hugging Face repository: {allowed}"
        ) from error
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise ArtifactError(
                f"the cache of Hugging Face, {constants.HF_HUB_CACHE}, cannot be written ({error.strerror}): free "
                "space there, or name another folder in the environment variable HF_HOME"
            ) from error
        raise ArtifactError(
            f"{name} is not a directory here, is not in the cache of Hugging Face and cannot be fetched: "
            f"{first_line(error)}. {by_hand}"
        ) from error
    except Exception as error:  # errors of the HTTP library beneath, which is another one in every other release
        raise ArtifactError(
            f"{name} could not be fetched by huggingface_hub {huggingface_hub.__version__} "
            f"({type(error).__name__}: {first_line(error)}). {by_hand}"
        ) from error
