"""The one exception that fairbench raises on purpose, and how text of any origin is made safe to show."""

import re
import traceback
from pathlib import Path

# What commands a terminal (C0 but tab and newline, DEL, C1), turns the direction of the text around it, or is not
# seen (but for U+200C and U+200D, which write Persian and emoji).
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def visible(text: str) -> str:
    """Write control characters, marks of direction and what is not seen as escapes, such as \\u001b."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """Write a text of any origin as one visible line, which it cannot end to begin another."""
    return visible(text).replace("\n", "\\u000a").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def said(error: BaseException) -> str:
    """Return an error's message as text that can be written anywhere, whatever a plugin put into it."""
    try:
        text = str(error)
    except Exception as worse:
        text = f"its message cannot be shown: {type(worse).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()


def named(error: BaseException) -> str:
    """Say in one line of which type an error is, and its message."""
    return ": ".join(filter(None, (type(error).__name__, " ".join(said(error).split()))))


def raised(error: BaseException) -> str:
    """Say in one line what somebody's code raised, and where."""
    if isinstance(error, SyntaxError):  # which says itself where it is
        return named(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{named(error)} ({Path(frame.filename).name}, line {frame.lineno})"


class FairbenchError(Exception):
    """What went wrong and where, with a hint on how to mend it; shown to the user without a traceback."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = visible(message)
        self.hint = visible(hint)

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message
