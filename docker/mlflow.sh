#!/usr/bin/env bash
# Before MLflow's server starts, its database gets the tables of the installed MLflow, as `airflow db migrate` does for Airflow's.
set -euo pipefail

# the address holds a password: as an argument of `mlflow db upgrade` it would be in the process list
python -c 'import os; from mlflow.db import upgrade; upgrade.main([os.environ["MLFLOW_BACKEND_STORE_URI"]])'
exec "$@"
