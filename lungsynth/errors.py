"""The one error that users are meant to see, and the wording of system errors in it."""

from lungsynth.text import printable


class LungsynthError(Exception):
    """A problem that the user can solve: the message says in one line what is wrong, where, and what to do.

    Entry points print the message without a traceback; every other exception is a bug in this project. Messages quote
    names and values from outside, so line breaks and control characters are escaped here.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), longest=4000)


def first_line(error: Exception) -> str:
    """First line of an error's message, or the name of its class if the message is empty."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_line(error: BaseException) -> str:
    """A library's message in one line of at most 300 characters, or the error's kind where it says nothing."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__  # Google's have a bare `message`
    return " ".join(str(message).split())[:300]


def reason(error: OSError) -> str:
    """The system's words for an OSError, without the path; some libraries give only a message."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
