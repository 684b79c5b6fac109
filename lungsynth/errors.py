"""The one error that users are meant to see."""

from lungsynth.text import printable


class LungsynthError(Exception):
    """A problem that its reader can mend: the message says what is wrong, where, and what to do, in one line.

    Entry points print the message without a traceback; every other exception is a bug in this project. Messages quote
    names and values from outside, so what would break a line or a terminal is escaped here, for all of them.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), longest=4000)
