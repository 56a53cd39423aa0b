"""The error family: one base to catch, and each error hints at its mending.

RackscaleError(what, *, hint)       exit  HTTP
+- SpecError       a file, an option or a request is wrong        2   400
+- CapacityError   it does not fit                                2   429
|  +- QueueFullError   not now; come back in retry_after_s        2   503
+- RankLostError   a rank died                                    1   503
"""


class RackscaleError(Exception):
    """What went wrong, and in `hint` what to do about it."""

    exit_code = 1
    http_status = 500

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.hint}" if self.hint else self.what


class SpecError(RackscaleError):
    """A file, an option or a request is wrong."""

    exit_code = 2
    http_status = 400


class CapacityError(RackscaleError):
    """It does not fit."""

    exit_code = 2
    http_status = 429


class QueueFullError(CapacityError):
    """It does not fit now; `retry_after_s` says when to come back."""

    http_status = 503

    def __init__(self, what: str, *, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(what, hint=hint)
        self.retry_after_s = retry_after_s


class RankLostError(RackscaleError):
    """A rank died, and what it held is gone."""

    exit_code = 1
    http_status = 503
