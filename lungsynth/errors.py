"""The one error that users are meant to see."""


class LungsynthError(Exception):
    """A problem that its reader can mend: the message says what is wrong, where, and what to do, in one line.

    Entry points print the message without a traceback; every other exception is a bug in this project.
    """
