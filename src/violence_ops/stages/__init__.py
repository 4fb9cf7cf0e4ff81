"""The steps of the pipeline, one file each: what the command line, dvc.yaml and the DAGs run."""
