"""The one exception that fairbench raises on purpose."""


class FairbenchError(Exception):
    """What went wrong and where, with a hint on how to mend it; shown to the user without a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message
