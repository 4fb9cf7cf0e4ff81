"""The third part of versioning: whether the remote answers, to which every batch and dataset is pushed."""

from __future__ import annotations

import threading
from typing import Any, Final

from violence_ops.deployment import without_password
from violence_ops.errors import ServiceUnavailable
from violence_ops.workspace import Workspace

_REACH_S: Final = 15.0


def reached(workspace: Workspace) -> str:
    """The address of the default remote, which was there within 15 s. Waits for no lock and changes nothing.

    Raises ServiceUnavailable if it was not.
    """
    from dvc.repo import Repo

    answer: dict[str, Any] = {"fault": f"no answer within {_REACH_S:.0f} s"}

    def ask() -> None:
        try:
            with Repo(str(workspace.root)) as repo:
                remote = repo.cloud.get_remote()
                answer["address"] = without_password(repo.config["remote"][remote.name]["url"])
                answer["fault"] = None if _is_there(remote) else "there is no such place"
        except Exception as error:  # whatever the remote's own client raises
            answer["fault"] = without_password(" ".join(str(error).split())) or type(error).__name__

    # a thread and no pool: the program does not wait for it at its end
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_REACH_S)
    if answer["fault"]:
        raise ServiceUnavailable(
            f"The DVC remote {answer.get('address', 'of this workspace')} cannot be reached ({answer['fault']}): look at the network, "
            "its credentials, and its address (`violence-ops dvc remote list`)."
        )
    return str(answer["address"])


def _is_there(remote: Any) -> bool:
    """Whether its folder is there, or what that will be made in by the first push: the folder above, the bucket."""
    fs, path = remote.fs, remote.path
    return bool(fs.exists(path) or fs.exists(fs.parent(path) if fs.protocol == "local" else fs.parts(path)[0]))
