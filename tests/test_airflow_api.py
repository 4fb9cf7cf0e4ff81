"""What answers at Airflow's address, and how, is said in a sentence whatever it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from violence_ops.airflow_api import AirflowApi
from violence_ops.errors import ServiceUnavailable

Answer = tuple[int, str]
TOKEN: Answer = (201, '{"access_token": "t"}')


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts what answers as it is told, by the end of a path, and gives its address; the status 0 says nothing for a second."""
    running = []

    def start(answers: dict[str, Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers["content-length"] or 0))
                status, body = answers.get(self.path.rpartition("/")[2].partition("?")[0], answers["other"])
                if status == 0:
                    time.sleep(1)
                    return
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def client(address: str) -> AirflowApi:
    return AirflowApi(address, "admin", "password", timeout_s=0.3)


@pytest.mark.parametrize(
    "other",
    [(200, "<html></html>"), (200, "[]"), (200, "{}"), (200, '{"status": "ok"}'), (200, ""), (302, ""), (200, "\x1f")],
    ids=["a page", "a list", "nothing in it", "another program's health", "empty", "elsewhere", "no text"],
)
def test_another_program_at_the_address_is_named(serve: Callable[..., str], other: Answer) -> None:
    address = serve({"other": other})
    with client(address) as api:
        for ask in (api.dag_ids, api.health):
            with pytest.raises(
                ServiceUnavailable, match=rf"What answers at {address} is not Airflow .*VIOLENCE_OPS_AIRFLOW_URL"
            ):
                ask()


def test_an_airflow_that_falls_silent_when_it_is_asked_for_a_new_token_does_not_answer(
    serve: Callable[..., str],
) -> None:
    answers = {"token": TOKEN, "other": (200, '{"dags": [], "total_entries": 0}')}
    with client(serve(answers)) as api:
        assert api.dag_ids() == []
        answers |= {"token": (0, ""), "other": (401, "{}")}
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            api.dag_ids()


@pytest.mark.parametrize("address", ["http://[::", "http://h:abc", "airflow:8080", "http://"])
def test_an_address_that_is_none_is_said_in_a_sentence(address: str) -> None:
    with client(address) as api, pytest.raises(ServiceUnavailable, match="does not answer"):
        api.dag_ids()
