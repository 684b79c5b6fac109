"""The one error that users are meant to see, and how an error of the system is told in it."""

from lungsynth.text import printable


class LungsynthError(Exception):
    """A problem that its reader can mend: the message says what is wrong, where, and what to do, in one line.

    Entry points print the message without a traceback; every other exception is a bug in this project. Messages quote
    names and values from outside, so what would break a line or a terminal is escaped here, for all of them.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), longest=4000)


def first_line(error: Exception) -> str:
    """What a library says in the first line of its message, or the error's kind where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_line(error: BaseException) -> str:
    """A library's message in one line of at most 300 characters, or the error's kind where it says nothing."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__  # Google's have a bare `message`
    return " ".join(str(message).split())[:300]


def reason(error: OSError) -> str:
    """Why, in the system's words without the path; libraries also raise an OSError that has only a message."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
