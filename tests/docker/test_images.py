"""What can be said of the images and the compose file without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from violence_ops import versioning
from violence_ops.stages.upkeep import init
from violence_ops.workspace import Workspace

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MACHINES: dict[str, Any] = yaml.safe_load((DOCKER / "machines.yaml").read_text("utf-8"))
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in (DOCKER / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
STAGES: dict[str, str] = {text.split()[2]: text.split()[0] for name, text in INSTRUCTIONS if name == "FROM"}
RELEASE_SETTINGS = ("webhook_url", "webhook_secret", "hook_command")
COMMANDS = sorted(
    {" ".join(each["command"]) for each in SERVICES.values() if each.get("command", [""])[0] == "airflow"}
)
COMMANDS += ["airflow pools set gpu 1 x", "airflow db migrate", "airflow jobs check --job-type DagProcessorJob"]


def _environment(service: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in (service.get("environment") or {}).items()}


def _file(name: str) -> str:
    return (DOCKER / name).read_text("utf-8")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_whether_it_is_healthy(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    runs_once = name.endswith("-init")
    assert check.get("disable", False) == runs_once
    assert runs_once or check["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_no_log_fills_the_disk(name: str) -> None:
    assert SERVICES[name]["logging"]["options"].keys() >= {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert tag
    assert tag != "latest"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_the_environment_and_have_no_default(name: str) -> None:
    secret = re.compile(r"PASSWORD|SECRET|FERNET|ACCESS_KEY|SQL_ALCHEMY|BROKER|RESULT_BACKEND|MC_HOST|AUTH$")
    for key, value in _environment(SERVICES[name]).items():
        if secret.search(key) and not key.endswith(("_FILE", "_USERS")):
            assert re.search(r"\$\{[A-Z_]+:\?\}", value) or value == f"${{{key}-}}", key


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_is_in_a_process_list(name: str) -> None:
    service = SERVICES[name]
    commands = [*service.get("entrypoint", ()), *service.get("command", ()), *service["healthcheck"].get("test", ())]
    assert not [word for word in commands if re.search(r"\$\{?\w*(PASSWORD|SECRET|KEY)", word)]


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_no_python_of_a_container_takes_a_module_from_the_folder_it_is_started_in(name: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("")
    given = {key: value for key, value in _environment(SERVICES[name]).items() if key.startswith("PYTHON")}
    command = [sys.executable, "-c", "import planted"]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
    assert "No module named 'planted'" in done.stderr


def test_the_bucket_of_the_remote_is_made_with_the_credentials_of_the_server() -> None:
    service, server = SERVICES["minio-init"], _environment(SERVICES["minio"])
    alias = service["command"][-1].partition("/")[0]
    signed = f"http://{server['MINIO_ROOT_USER']}:{server['MINIO_ROOT_PASSWORD']}@minio:9000"
    assert _environment(service) == {f"MC_HOST_{alias}": signed}


def _release_settings() -> set[str]:
    from violence_ops.deployment import Deployment

    names = {f"VIOLENCE_OPS_{each.name.upper()}" for each in fields(Deployment) if each.name in RELEASE_SETTINGS}
    assert len(names) == len(RELEASE_SETTINGS)
    return names


def test_what_tells_of_releases_reaches_the_workers_that_release_and_nobody_else() -> None:
    names = _release_settings()
    for name, service in SERVICES.items():
        given = {key: value for key, value in _environment(service).items() if key in names}
        assert given == ({key: f"${{{key}-}}" for key in names} if name == "worker-cpu" else {}), name
    assert "./hooks:/hooks:ro" in SERVICES["worker-cpu"]["volumes"]
    assert set(SERVICES["api-server"]["volumes"]) < set(SERVICES["worker-cpu"]["volumes"])


def test_who_is_told_of_failures_is_known_where_tasks_run_or_are_found_dead_and_where_doctor_is_asked() -> None:
    """Airflow runs the callbacks of a task in the task's own process, those of a run in the DAG processor, those of a deadline in the
    triggerer."""
    from violence_ops.deployment import Deployment

    names = {f"VIOLENCE_OPS_{each.name.upper()}" for each in fields(Deployment) if each.name.startswith("alert_")}
    assert len(names) == 3
    for name, service in SERVICES.items():
        given = {key: value for key, value in _environment(service).items() if key in names}
        is_told = name in ("worker-cpu", "worker-gpu", "dag-processor", "scheduler", "triggerer")
        assert given == ({key: f"${{{key}-}}" for key in names} if is_told else {}), name
        assert ("./hooks:/hooks:ro" in service.get("volumes", ())) == is_told, name
        if is_told:
            assert set(_environment(SERVICES["api-server"])) < set(_environment(service))
            assert set(SERVICES["api-server"]["volumes"]) < set(service["volumes"])


def test_a_callback_has_the_time_that_an_alert_may_take() -> None:
    from violence_ops import webhook
    from violence_ops.stages.upkeep import alert

    longest = sum(webhook.PAUSES_S) + (len(webhook.PAUSES_S) + 1) * webhook._TIMEOUT_S + alert.HOOK_TIMEOUT_S
    for name in ("worker-cpu", "worker-gpu"):
        assert int(_environment(SERVICES[name])["AIRFLOW__CORE__TASK_SUCCESS_OVERTIME"]) > longest + 10
    of_runs = _environment(SERVICES["dag-processor"])["AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT"]
    assert int(of_runs) > 5 * longest


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_that_leaks_takes_no_other_with_it_and_none_leaves_dead_processes(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]|\$\{[A-Z_]+:-\d+g\}", SERVICES[name]["mem_limit"])
    assert SERVICES[name]["init"] is True


def test_every_variable_of_the_compose_file_is_in_the_example_and_empty_there() -> None:
    wanted = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", _file("compose.yaml") + _file("machines.yaml")))
    lines = [line for line in _file(".env.example").splitlines() if line and not line.startswith("#")]
    example = dict(line.split("=", 1) for line in lines)
    assert set(example) == wanted
    assert {name for name, value in example.items() if value} == {"GPU_SLOTS"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_dependency_exists_and_fits_how_it_ends(name: str) -> None:
    for other, wait in (SERVICES[name].get("depends_on") or {}).items():
        ends = "service_completed_successfully" if other.endswith("-init") else "service_healthy"
        assert wait["condition"] == ends, other
        assert other in SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_every_named_volume_is_declared(name: str) -> None:
    named = {volume.partition(":")[0] for volume in SERVICES[name].get("volumes", ())}
    assert {volume for volume in named if not volume.startswith(".")} <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_every_built_image_has_its_target(name: str) -> None:
    assert SERVICES[name]["build"]["target"] in STAGES


def test_each_queue_of_the_dags_has_a_worker() -> None:
    served = {service["command"][4] for name, service in SERVICES.items() if name.startswith("worker-")}
    default = _environment(SERVICES["scheduler"])["AIRFLOW__OPERATORS__DEFAULT_QUEUE"]
    assert served == {"gpu", default}


def test_a_gpu_worker_has_the_device_that_is_named_and_computes_on_no_other() -> None:
    reserved = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "device_ids": ["${GPU:-0}"], "capabilities": ["gpu"]}]
    stage = [text for name, text in INSTRUCTIONS if name == "ENV" and "NVIDIA_VISIBLE_DEVICES" in text]
    assert "VIOLENCE_OPS_DEVICE=cuda" in stage[0].split()
    assert sum("VIOLENCE_OPS_DEVICE" in text for _, text in INSTRUCTIONS) == 1


def test_a_host_without_a_gpu_serves_every_queue_all_the_same() -> None:
    changed: dict[str, Any] = yaml.safe_load(_file("without-gpu.yaml"))["services"]
    gpu, own = changed.pop("worker-gpu"), changed.pop("worker-processor")
    assert not changed
    assert gpu["profiles"], "a service of a profile is started only where the profile is asked for"
    assert own["extends"] == {"file": "compose.yaml", "service": "worker-cpu"}
    assert own["command"] == SERVICES["worker-gpu"]["command"]
    # it releases nothing, so it gets nothing of what worker-cpu tells other systems of releases with
    assert own["environment"] == dict.fromkeys(_release_settings(), "") | {"VIOLENCE_OPS_DEVICE": "cpu"}


def test_the_command_of_the_readme_puts_clips_into_the_inbox_and_leaves_the_inbox_itself_as_it_was(
    tmp_path: Path,
) -> None:
    (command,) = [line for line in _file("README.md").splitlines() if line.startswith("tar ")]
    inside = "docker compose -f docker/compose.yaml exec -T scheduler "
    assert inside in command
    (tmp_path / "tonight" / "Fight").mkdir(parents=True)
    (tmp_path / "tonight" / "Fight" / "a.mp4").write_bytes(b"a")
    (tmp_path / "tonight").chmod(0o700)
    inbox = tmp_path / "workspace" / "inbox"
    inbox.mkdir(parents=True, mode=0o755)
    here = command.replace(inside, "").replace("/workspace/inbox", str(inbox))
    subprocess.run(["bash", "-c", here], cwd=tmp_path, check=True)
    assert (inbox / "Fight" / "a.mp4").read_bytes() == b"a"
    assert inbox.stat().st_mode & 0o777 == 0o755


def test_the_workspace_can_lie_in_a_folder_of_the_host_as_it_does_with_further_machines() -> None:
    assert yaml.safe_load(_file("folder.yaml")) == {"volumes": MACHINES["volumes"]}


def test_pulled_weights_and_int8_networks_are_seen_by_every_worker_and_outlast_its_container() -> None:
    from violence_ops.versioning import DVCIGNORE, GITIGNORE

    for name, service in SERVICES.items():
        given = _environment(service)
        if "VIOLENCE_OPS_WORKSPACE" in given:
            folder = Path(given.get("VIOLENCE_OPS_WEIGHTS", "")).relative_to(given["VIOLENCE_OPS_WORKSPACE"])
            assert f"/{folder.parts[0]}/" in GITIGNORE.splitlines(), name
            assert f"/{folder.parts[0]}" in DVCIGNORE.splitlines(), name
    assert "VIOLENCE_OPS_WEIGHTS" not in _environment(MACHINES["services"]["worker-gpu"])


def test_further_machines_reach_every_service_at_the_address_that_was_named() -> None:
    changed = MACHINES["services"]
    assert set(changed) <= set(SERVICES)
    ports = {port for name in changed for port in changed[name].get("ports", ())}
    assert all(re.fullmatch(r"\$\{ADDRESS:\?\}:(\d+):\1", port) for port in ports)
    base, own = _environment(SERVICES["worker-gpu"]), _environment(changed["worker-gpu"])
    assert set(own) <= set(base)
    for key, value in (base | own).items():
        named = {name for name in SERVICES if re.search(rf"(//|@){name}\b", value)}
        assert not named, f"{key} names {named}, which only the first machine's containers can look up"
    for name in ("postgres", "redis", "minio", "mlflow", "api-server"):
        inside = {key: value for key, value in base.items() if re.search(rf"(//|@){name}\b", value)}
        for key, value in inside.items():
            assert re.sub(rf"((//|@)){name}\b", r"\1${ADDRESS:?}", value) == own[key]
        used = {found[1] for value in inside.values() if (found := re.search(rf"{name}:(\d+)", value))} or {"5432"}
        assert {port.rpartition(":")[2] for port in changed[name]["ports"]} == used
    whole, start = changed["mlflow"]["command"], SERVICES["mlflow"]["command"]
    assert whole == [*start[:-1], start[-1] + ",${ADDRESS:?}:5000"]
    assert set(MACHINES["volumes"]) == {"workspace"}


def test_every_image_says_which_code_it_holds() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["args"] == {"CODE_REVISION": "${CODE_REVISION-}"}, name
    for target in ("orchestrator", "gpu-worker"):
        start = INSTRUCTIONS.index(
            ["FROM", next(t for n, t in INSTRUCTIONS if n == "FROM" and t.endswith(f" {target}"))]
        )
        stage = INSTRUCTIONS[start + 1 :]
        stage = stage[: next((i for i, (n, _) in enumerate(stage) if n == "FROM"), None)]
        assert ["ARG", 'CODE_REVISION=""'] in stage
        given = [
            i for i, (name, text) in enumerate(stage) if "VIOLENCE_OPS_CODE_REVISION=$CODE_REVISION" in text.split()
        ]
        assert given
        assert stage.index(["ARG", 'CODE_REVISION=""']) < given[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_airflow_understands_the_commands(command: str) -> None:
    from airflow.cli.cli_parser import get_parser

    options = command.split()[1:]
    if options[0] == "celery":
        from airflow.providers.celery.cli.definition import get_celery_cli_commands

        assert "worker" in {sub.name for group in get_celery_cli_commands() for sub in group.subcommands}
    else:
        assert get_parser().parse_args(options).func


def test_every_airflow_setting_exists() -> None:
    from airflow.configuration import retrieve_configuration_description

    described = retrieve_configuration_description(include_providers=True)
    known = {f"AIRFLOW__{section}__{key}".upper() for section, facts in described.items() for key in facts["options"]}
    used = {key for service in SERVICES.values() for key in _environment(service) if key.startswith("AIRFLOW__")}
    assert used <= known


def test_a_task_may_wait_for_a_free_worker_for_longer_than_any_night_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.configuration import conf

    for key, value in _environment(SERVICES["scheduler"]).items():
        if key.startswith("AIRFLOW__SCHEDULER__"):
            monkeypatch.setenv(key, value)
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    longest_night_h = 24  # and then a task that runs to its limit
    patience_h = conf.getfloat("scheduler", "task_queued_timeout") / 3600
    assert patience_h >= longest_night_h + params["schedule"]["task_timeout_h"]


def test_mlflow_understands_its_command() -> None:
    flags = [word for word in SERVICES["mlflow"]["command"] if word.startswith("--")]
    text = subprocess.run(
        [sys.executable, "-m", "mlflow", "server", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert [flag for flag in flags if flag not in text] == []


@pytest.mark.parametrize("stage", [stage for stage, source in STAGES.items() if source not in STAGES])
def test_base_images_are_pinned(stage: str) -> None:
    assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-slim-bookworm", STAGES[stage])


@pytest.mark.parametrize("target", ["orchestrator", "cpu-worker", "gpu-worker"])
def test_containers_do_not_run_as_root(target: str) -> None:
    user, stage = None, None
    users: dict[str, str | None] = {}
    for name, text in INSTRUCTIONS:
        if name == "FROM":
            stage = text.split()[2]
            user = users.get(text.split()[0])
        elif name == "USER":
            user = text
        users[stage or ""] = user
    assert users[target] not in (None, "root", "0")


def test_the_build_follows_the_usual_rules() -> None:
    names = [name for name, _ in INSTRUCTIONS]
    assert "ADD" not in names
    for name, text in INSTRUCTIONS:
        if name == "RUN" and "apt-get install" in text:
            assert "--no-install-recommends" in text
            assert "rm -rf /var/lib/apt/lists" in text
        if name in ("ENV", "ARG"):
            assert not re.search(r"PASSWORD|SECRET|TOKEN", text)


def test_what_the_build_copies_is_in_its_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for name, text in INSTRUCTIONS:
        if name == "COPY" and "--from=" not in text:
            for source in (word for word in text.split()[:-1] if not word.startswith("--")):
                assert source in allowed, source
                assert (ROOT / source).exists()


def test_a_new_workspace_is_sent_to_minio_and_a_remote_that_a_site_chose_outlasts_every_start(tmp_path: Path) -> None:
    workspace, own, programs = tmp_path / "workspace", tmp_path / "offsite", tmp_path / "programs"
    programs.mkdir()
    (programs / "airflow").write_text("#!/bin/sh\n")  # its database and pools are not what is asked about
    (programs / "airflow").chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "AIRFLOW_ADMIN_PASSWORD": "a", "AIRFLOW_RELEASE_MANAGER_PASSWORD": "b", "GPU_SLOTS": "1",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "VIOLENCE_OPS_WORKSPACE": str(workspace), "AWS_ENDPOINT_URL": "http://minio:9000",
    }  # fmt: skip

    def start() -> str | None:
        subprocess.run([str(DOCKER / "init.sh")], env=environment, check=True, capture_output=True)
        return versioning.default_remote(Workspace(workspace))

    assert start() == "s3://dvc/violence-ops at http://minio:9000"
    own.mkdir()
    init.run(workspace, remote_url=str(own))
    assert start() == str(own)


def test_versions_are_said_in_the_lock_only() -> None:
    assert "==" not in _file("Dockerfile")


@pytest.mark.parametrize("name", ["init.sh", "databases.sh"])
def test_shell_scripts_are_executable_and_parse(name: str) -> None:
    script = DOCKER / name
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
