#!/usr/bin/env bash
# Runs once in a new PostgreSQL: beside Airflow's database, one for the catalog and one for MLflow.
set -euo pipefail
createdb --username "$POSTGRES_USER" catalog
createdb --username "$POSTGRES_USER" mlflow
