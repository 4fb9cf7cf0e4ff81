"""The steps of the pipeline, one file each: the only thing that the command line, dvc.yaml and the DAGs call."""
