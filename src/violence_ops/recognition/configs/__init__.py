"""MMAction2 configurations, one file per model family; `train.family` names one."""
