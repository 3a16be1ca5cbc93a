"""A checkpoint by its name: out of the hub's cache on this machine, or downloaded into it once.

`huggingface_hub` does the work: it shows bars, goes on where a download stopped, and keeps every revision. Here its
many errors become one sentence each.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import warnings
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from musicgen_edu.checkpoints.tensors import CONVERSION, CheckpointError

META = {
    size: f"facebook/musicgen-{size}"
    for size in ("small", "medium", "large", "melody", "melody-large", "stereo-small", "stereo-medium", "stereo-large",
                 "stereo-melody", "stereo-melody-large")
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ["*.json", "spiece.model", "model.safetensors", "model-*.safetensors"]
MEGABYTE = 10**6


class LicenceNotice(UserWarning):
    """Weights that may not be used for everything."""


def find_folder(source: str | os.PathLike, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint: `source` itself, or the download of a name such as "facebook/musicgen-small".

    Raises:
        FileNotFoundError: there is no such folder, and no such model or revision on the hub.
        PermissionError: the model's owner wants to be asked first.
        ConnectionError: the model is not on this machine, and the hub cannot be reached.
        OSError: the disk has no room for it.
        ValueError: the model has pickles only.
        TypeError: `source` is neither a path nor a name, or `revision` is no name.
    """
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"A checkpoint is a folder, or a name such as {META['small']!r}, not {source!r}.")
    if revision is not None and not isinstance(revision, str):
        raise TypeError(f"A revision is a branch, a tag or a commit's letters, not {revision!r:.60}.")
    if os.path.isdir(source) or not isinstance(source, str) or not _NAME.fullmatch(source):
        return Path(source)
    if source in META.values():
        notice = f"The weights of {source} are Meta's, under CC-BY-NC 4.0: not for commercial use."
        warnings.warn(notice, LicenceNotice, stacklevel=2)
    wanted = {"repo_id": source, "revision": revision, "allow_patterns": _FILES}
    try:
        files = snapshot_download(**wanted, dry_run=True)
    except DryRunError as error:
        return _from_cache(wanted, error.__cause__ or error)
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"The model {source!r} has no revision {revision!r} on the hub.") from error
    except HFValidationError as error:
        raise FileNotFoundError(f"There is no folder {source!r}, and no model can have that name.") from error
    except Exception as error:
        raise _stopped(source, error) from error
    _check_files(source, files)
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:
        raise _stopped(source, error) from error


def _stopped(source: str, error: Exception) -> ConnectionError:
    """One kind for all that the system, HTTP or the hub's own protocols may raise in the middle."""
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return ConnectionError(f"The download of {source} stopped ({reason}): run it again, it goes on where it was.")


def _from_cache(wanted: dict, reason: Exception) -> Path:
    """What an earlier download left here; where there is none, why there is no other."""
    try:
        return Path(snapshot_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    source = wanted["repo_id"]
    if isinstance(reason, GatedRepoError):
        raise PermissionError(
            f"The owner of {source} wants to be asked first: ask on its page, then log in with `hf auth login`."
        ) from reason
    if isinstance(reason, RepositoryNotFoundError):
        near = difflib.get_close_matches(source, META.values(), n=1, cutoff=0.5) or ["facebook/musicgen-small"]
        raise FileNotFoundError(
            f"There is no folder {source!r}, and the hub has no such model, or none that it shows you: "
            f"did you mean {near[0]}?"
        ) from reason
    raise ConnectionError(
        f"There is no folder {source!r}, no earlier download of that name, and the hub cannot be reached: "
        "connect to the network once, or give a folder."
    ) from reason


def _check_files(source: str, files: list) -> None:
    """Refuse, before anything is downloaded, pickles and what the disk cannot hold."""
    if not any(file.filename.endswith(".safetensors") for file in files):
        raise CheckpointError(
            f"The model {source} has no safetensors but pickles only, which can run any code when opened: "
            f"if you trust it, convert it with {CONVERSION}."
        )
    needed = sum(file.file_size or 0 for file in files if file.will_download)
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if needed > free:
        raise OSError(
            f"{source} needs {needed / MEGABYTE:,.0f} MB on the disk, and {free / MEGABYTE:,.0f} MB are free "
            f"in {cache}: make room, or let HF_HOME name a larger disk."
        )
