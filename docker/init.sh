#!/usr/bin/env bash
# Runs once before the other Airflow services: database, pools, passwords, workspace. Can be repeated.
set -euo pipefail

umask 077
python - <<'PYTHON'
import json, os
from pathlib import Path

users = {"admin": os.environ["AIRFLOW_ADMIN_PASSWORD"], "release-manager": os.environ["AIRFLOW_RELEASE_MANAGER_PASSWORD"]}
Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).write_text(json.dumps(users), "utf-8")
PYTHON
umask 022

airflow db migrate
airflow pools set gpu "$GPU_SLOTS" "one model on a device at a time"
airflow pools set versioning 1 "one task that moves data with DVC at a time"
remote=(--remote s3://dvc/violence-ops --endpoint "$AWS_ENDPOINT_URL")
# of a workspace that was there already, the remote is the site's own choice
if grep --quiet --no-messages --fixed-strings 'remote "default"' "$VIOLENCE_OPS_WORKSPACE/.dvc/config"; then remote=(); fi
violence-ops init "$VIOLENCE_OPS_WORKSPACE" "${remote[@]}"
