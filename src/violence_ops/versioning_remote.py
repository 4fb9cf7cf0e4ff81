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
    done = sorted(versioned_batches(workspace))
    address, missing = _asked(workspace, {*done[:1], *done[-1:]})
    if missing:
        raise ServiceUnavailable(
            f"The DVC remote {address} {_lacks(done, missing)}: if it is a disk or a share, see that it is mounted; if it is new, "
            "`violence-ops dvc push` sends what it lacks."
        )
    return address


def lacking(workspace: Workspace) -> list[str]:
    """Which of all the sealed batches that were sent somewhere the default remote does not hold, in order.

    Raises ServiceUnavailable if that was not said within 15 s.
    """
    return sorted(_asked(workspace, versioned_batches(workspace))[1])


def _asked(workspace: Workspace, batch_ids: set[str]) -> tuple[str, set[str]]:
    """The address of the default remote, and which of these batches it lacks. Raises ServiceUnavailable if it does not answer."""
    from dvc.repo import Repo

    sent = _sent(workspace, batch_ids)
    answer: dict[str, Any] = {"fault": f"no answer within {_REACH_S:.0f} s"}

    def ask() -> None:
        try:
            with Repo(str(workspace.root)) as repo:
                remote = repo.cloud.get_remote()
                answer["address"] = without_password(repo.config["remote"][remote.name]["url"])
                is_there = _is_there(remote)
                held = set(remote.odb.list_oids_exists(sent.values())) if is_there else set()
                answer["lacking"] = {one for one, oid in sent.items() if oid not in held}
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
    return answer["address"], answer["lacking"]


def _lacks(done: list[str], missing: set[str]) -> str:
    """What is known of the batches that are missing: only the oldest and the newest of all were asked for."""
    if len(done) == 1:
        return f"does not hold batch {done[0]}"
    places = {done[0]: "the oldest", done[-1]: "the newest"}
    named = " and ".join(f"{one} ({place})" for one, place in places.items() if one in missing)
    return f"does not hold all of the {len(done)} sealed batches: of the oldest and the newest, which it was asked for, it lacks {named}"


def _sent(workspace: Workspace, batch_ids: set[str]) -> dict[str, str]:
    """Those of the batches that were sent, and under which name DVC keeps the list of their files."""
    pointers = {batch_id: workspace.batch(batch_id).pointer for batch_id in batch_ids}
    found = {batch_id: _OID.search(path.read_text("utf-8")) for batch_id, path in pointers.items() if path.is_file()}
    return {batch_id: oid[1] for batch_id, oid in found.items() if oid}


def _is_there(remote: Any) -> bool:
    """Whether its folder is there, or what that will be made in by the first push: the folder above, the bucket."""
    fs, path = remote.fs, remote.path
    return bool(fs.exists(path) or fs.exists(fs.parent(path) if fs.protocol == "local" else fs.parts(path)[0]))
