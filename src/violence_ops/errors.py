"""Errors that a user can act on: one sentence each, and the exit code of the command line."""


class UserError(Exception):
    """Something the user can mend. The message says what, where, and what to do; no traceback is shown."""

    exit_code = 1


class UsageError(UserError):
    """The command or its arguments make no sense together."""

    exit_code = 2


class UnknownBatch(UsageError):
    """A batch was named that the workspace does not have."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"Batch {batch_id} is not in this workspace: `violence-ops status --json` lists the batches.")
        self.batch_id = batch_id

    def __reduce__(self) -> tuple[type["UnknownBatch"], tuple[str]]:
        return type(self), (self.batch_id,)


class RefusedByGate(UserError):
    """The gate, or a rule that guards a release, said no."""

    exit_code = 3


class InputUnusable(UserError):
    """Nothing of what came in could be used; all of it is in quarantine."""

    exit_code = 4


class ParamsError(UserError):
    """A key of params.yaml is unknown, missing or out of range."""

    exit_code = 2


class WorkspaceError(UserError):
    """The workspace is not in the state that the step needs: it has no champion yet, for example."""


class NoGpu(UserError):
    """A GPU is asked for where this process sees none."""


class Forgotten(WorkspaceError):
    """A clip was forgotten while somebody worked on it."""

    def __init__(self, clip_id: str) -> None:
        super().__init__(f"Clip {clip_id} was forgotten meanwhile: nothing is written of it any more.")
        self.clip_id = clip_id

    def __reduce__(self) -> tuple[type["Forgotten"], tuple[str]]:
        return type(self), (self.clip_id,)


class ServiceUnavailable(UserError):
    """An outside system (MLflow, the catalog's database, the DVC remote) cannot be reached; a retry may succeed."""


class ExpectationsFailed(UserError):
    """The data is not what it should be: the batch stops and everything stays in place."""


class Rejected(UserError):
    """One clip cannot be used. `reason` is a code of SPEC 1; the message is the sentence for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["Rejected"], tuple[str, str]]:
        return type(self), (self.reason, str(self))
