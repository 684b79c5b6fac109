"""Text from outside (names of files, cells of tables, DICOM, servers) made fit to be stored and to be shown."""

import re

LONGEST = 300


def readable(text: str) -> str:
    """The text as valid Unicode, which Parquet, JSON and databases ask for.

    A byte of a file name that is no UTF-8, which Python keeps as a surrogate, is read as Latin-1: most such names are.
    """
    if text.isascii():
        return text
    text = re.sub("[\udc80-\udcff]", lambda byte: chr(ord(byte[0]) - 0xDC00), text)
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def printable(text: str, longest: int = LONGEST) -> str:
    """The text as one line for a terminal, a log, a report or a server.

    White space becomes single blanks; what shows nothing or steers a terminal is escaped, such as `\\x1b`; of a text of
    more than `longest` characters the middle goes.
    """
    if not (text.isascii() and text.isprintable()):
        text = " ".join(readable(text).split())
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(text) <= longest:
        return text
    half = longest // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
