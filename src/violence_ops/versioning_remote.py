"""The third part of versioning: whether the remote, to which every batch and dataset is pushed, answers and holds them."""

from __future__ import annotations

import re
import threading
from typing import Any, Final

from violence_ops.deployment import without_password
from violence_ops.errors import ServiceUnavailable
from violence_ops.versioning import versioned_batches
from violence_ops.workspace import Workspace

_REACH_S: Final = 15.0
_OID: Final = re.compile(r"\bmd5: ([0-9a-f]{32}\.dir)")


def reached(workspace: Workspace) -> str:
    """The address of the default remote, which was there within 15 s, with the oldest and the newest sealed batch: the one that
    was changed lacks the former, a disk that is not mounted both. Waits for no lock and changes nothing.

    Raises ServiceUnavailable if it was not there, or one of them is not in it.
    """
    from dvc.repo import Repo

    sent = _sent(workspace)
    answer: dict[str, Any] = {"fault": f"no answer within {_REACH_S:.0f} s"}

    def ask() -> None:
        try:
            with Repo(str(workspace.root)) as repo:
                remote = repo.cloud.get_remote()
                answer["address"] = without_password(repo.config["remote"][remote.name]["url"])
                is_there = _is_there(remote)
                answer["lacking"] = [one for one, oid in sent.items() if is_there and not remote.odb.exists(oid)]
                answer["fault"] = None if is_there else "there is no such place"
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
    if answer["lacking"]:
        raise ServiceUnavailable(
            f"The DVC remote {answer['address']} does not hold batch {' and '.join(answer['lacking'])}: if it is a disk or a share, see "
            "that it is mounted; if it is new, `violence-ops dvc push` sends what it lacks."
        )
    return str(answer["address"])


def _sent(workspace: Workspace) -> dict[str, str]:
    """The oldest and the newest batch that was sent, and under which name DVC keeps the list of its files."""
    done = sorted(versioned_batches(workspace))
    pointers = {batch_id: workspace.batch(batch_id).pointer for batch_id in (*done[:1], *done[-1:])}
    found = {batch_id: _OID.search(path.read_text("utf-8")) for batch_id, path in pointers.items() if path.is_file()}
    return {batch_id: oid[1] for batch_id, oid in found.items() if oid}


def _is_there(remote: Any) -> bool:
    """Whether its folder is there, or what that will be made in by the first push: the folder above, the bucket."""
    fs, path = remote.fs, remote.path
    return bool(fs.exists(path) or fs.exists(fs.parent(path) if fs.protocol == "local" else fs.parts(path)[0]))
