"""Airflow's REST API, as far as the demo, `status` and the tests need it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from violence_ops.deployment import without_password
from violence_ops.errors import ServiceUnavailable, UserError

_PATIENCE_S: Final = 60.0  # with an Airflow that does not answer while a run is waited for
_FINISHED: Final = frozenset({"success", "failed"})
_PAGE: Final = 100
_SETTLED_S: Final = 4.0  # some rounds of Airflow's scheduler
_NEW: Final = timedelta(minutes=1)


class AirflowApi:
    """A signed-in client. `address` is Airflow's page, e.g. `http://127.0.0.1:8080`; one instance is for one thread.

    Its attribute `address` is to be shown: without a user and a password.
    """

    def __init__(self, address: str, username: str, password: str, *, timeout_s: float = 30.0) -> None:
        self._root = address.rstrip("/")
        self.address = without_password(self._root)
        self._credentials = {"username": username, "password": password}
        # loopback or an internal address: never through a proxy of the environment
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # the pieces

    def health(self) -> dict[str, str | None]:
        """The state of each component: `healthy`, `unhealthy`, or None if it has never run."""
        response = self._asked("GET", "api/v2/monitor/health")
        components = self._said(response)
        if not components or not all(isinstance(facts, dict) and "status" in facts for facts in components.values()):
            raise self._other_program(response)
        return {name: facts["status"] for name, facts in components.items()}

    def dag_ids(self) -> list[str]:
        """The DAGs that the dag processor has found."""
        return [dag["dag_id"] for dag in self._pages("dags", "dags")]

    def import_errors(self) -> dict[str, str]:
        """What is wrong with DAG files that could not be read: file -> traceback."""
        return {item["filename"]: item["stack_trace"] for item in self._pages("importErrors", "import_errors")}

    def pools(self) -> dict[str, int]:
        """The pools and their slots."""
        return {pool["name"]: pool["slots"] for pool in self._pages("pools", "pools")}

    def create_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool; one of this name that exists stays as it is."""
        if name not in self.pools():
            self._send("POST", "pools", {"name": name, "slots": slots, "description": description})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run and return its id. `conf` fills the DAG's form; a value that its schema forbids is a UserError."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        return str(self._send("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The DAG's runs, oldest first; each has `dag_run_id`, `state`, `start_date`, `end_date`, `conf`."""
        return sorted(self._pages(f"dags/{dag_id}/dagRuns", "dag_runs"), key=lambda run: run["run_after"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        return self._send("GET", f"dags/{dag_id}/dagRuns/{run_id}")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances; each has `task_id`, `map_index`, `state`, `try_number`, `duration`, `pid`."""
        return list(self._pages(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances"))

    def tasks_in(self, *states: str) -> list[dict[str, Any]]:
        """The task instances of all DAGs in one of these states; each has also `queue` and `queued_when`."""
        wanted = "&".join(f"state={state}" for state in states)
        return list(self._pages(f"dags/~/dagRuns/~/taskInstances?{wanted}", "task_instances"))

    def started_by(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """The assets whose updates started a run, each with the extra of its event."""
        events = self._send("GET", f"dags/{dag_id}/dagRuns/{run_id}/upstreamAssetEvents")["asset_events"]
        return {event["name"]: event["extra"] for event in events}

    def update_asset(self, name: str, extra: Mapping[str, Any]) -> None:
        """Record an update of an asset, as if a task had made it: the DAGs that wait for it are started."""
        found = [asset["id"] for asset in self._pages("assets", "assets") if asset["name"] == name]
        if not found:
            raise UserError(f"Airflow at {self.address} knows no asset {name}: see that its DAG files could be read.")
        self._send("POST", "assets/events", {"asset_id": found[0], "extra": dict(extra)})

    def log(self, dag_id: str, run_id: str, task_id: str, *, try_number: int = 1, map_index: int = -1) -> str:
        """The log of one try of a task, a line per event."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self._send("GET", f"{path}?full_content=true&map_index={map_index}")["content"]
        return "\n".join(line if isinstance(line, str) else str(line.get("event", line)) for line in content)

    def approvals(self) -> list[dict[str, Any]]:
        """The questions that wait for a person; each has `subject`, `body`, `options` and `task_instance`."""
        return list(self._pages("dags/~/dagRuns/~/hitlDetails?response_received=false", "hitl_details"))

    def respond(self, approval: Mapping[str, Any], option: str) -> None:
        """Answer a question of `approvals()` with one of its options, as the user who is signed in.

        One that was asked this moment is answered some seconds after its task began to wait. An answer that comes before the scheduler
        has seen that the asking process ended makes Airflow 3.3 take that for lost: it tries the task again, which drops the answer
        and asks anew.
        """
        task = approval["task_instance"]
        path = f"dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/{task['map_index']}"
        asked = datetime.fromisoformat(approval["created_at"])
        while (is_new := datetime.now(UTC) - asked < _NEW) and self._send("GET", path)["state"] == "running":
            time.sleep(1.0)
        if is_new:
            time.sleep(_SETTLED_S)
        self._send("PATCH", f"{path}/hitlDetails", {"chosen_options": [option], "params_input": {}})

    def wait(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout_s: float,
        poll_s: float = 1.0,
        on_poll: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> str:
        """Wait until a run is finished and return its state, `success` or `failed`.

        `on_poll` is called with the task instances at every poll. A busy Airflow that misses some polls is asked again. Raises
        ServiceUnavailable after `timeout_s`, or if it has not answered for a minute.
        """
        limit, heard = time.monotonic() + timeout_s, time.monotonic()
        while time.monotonic() < limit:
            try:
                state, tasks = self.run(dag_id, run_id)["state"], self.tasks(dag_id, run_id)
            except ServiceUnavailable:
                if time.monotonic() - heard > _PATIENCE_S:
                    raise
            else:
                heard = time.monotonic()
                if on_poll:
                    on_poll(tasks)
                if state in _FINISHED:
                    return str(state)
            time.sleep(poll_s)
        raise ServiceUnavailable(
            f"The run {run_id} of {dag_id} is not finished after {timeout_s:.0f} s: look at it on {self.address}."
        )

    # how they are sent

    def _pages(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        separator = "&" if "?" in path else "?"
        offset = 0
        while True:
            page = self._send("GET", f"{path}{separator}limit={_PAGE}&offset={offset}")
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if "authorization" not in self._http.headers:
            self._sign_in()
        response = self._asked(method, f"api/v2/{path}", body)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            # the token has expired
            self._sign_in()
            response = self._asked(method, f"api/v2/{path}", body)
        return self._said(response)

    def _sign_in(self) -> None:
        response = self._asked("POST", "auth/token", self._credentials)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UserError(f"Airflow at {self.address} refuses the password of {self._credentials['username']}.")
        answer = self._said(response)
        if "access_token" not in answer:
            raise self._other_program(response)
        self._http.headers["authorization"] = f"Bearer {answer['access_token']}"

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            return self._http.request(method, f"{self._root}/{path}", json=body)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise ServiceUnavailable(
                f"Airflow at {self.address} does not answer ({without_password(str(error))}): see that it runs there; `violence-ops up` starts a workspace's own."
            ) from None

    def _said(self, response: httpx.Response) -> dict[str, Any]:
        """The object in an answer, as there is one in each of Airflow's."""
        what = f"{response.request.method} {response.request.url.path}"
        if response.is_server_error:
            raise ServiceUnavailable(
                f"Airflow at {self.address} failed on {what} ({response.status_code}): see its api-server log."
            )
        if response.is_error:
            raise UserError(f"Airflow at {self.address} refused {what} ({response.status_code}): {response.text[:300]}")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not (response.is_success and isinstance(answer, dict)):
            raise self._other_program(response)
        return answer

    def _other_program(self, response: httpx.Response) -> ServiceUnavailable:
        kind = response.headers.get("content-type", "of no type")
        return ServiceUnavailable(
            f"What answers at {self.address} is not Airflow (to {response.request.url.path}: {response.status_code}, {kind}): see that "
            "Airflow runs there, and that VIOLENCE_OPS_AIRFLOW_URL, if it is set, names it."
        )
