"""Makes text from outside (file names, table cells, DICOM, servers) safe to store and to print."""

import re

LONGEST = 300


def readable(text: str) -> str:
    """The text as valid Unicode, which Parquet, JSON and databases require.

    Python keeps a byte of a file name that is not UTF-8 as a surrogate. It is read as Latin-1, as most such names are.
    """
    if text.isascii():
        return text
    text = re.sub("[\udc80-\udcff]", lambda byte: chr(ord(byte[0]) - 0xDC00), text)
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def printable(text: str, longest: int = LONGEST) -> str:
    """The text as one line for a terminal, a log, a report or a server.

    White space becomes single blanks, unprintable characters are escaped (`\\x1b`), and the middle of a text of more
    than `longest` characters is left out.
    """
    if not (text.isascii() and text.isprintable()):
        text = " ".join(readable(text).split())
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    if len(text) <= longest:
        return text
    half = longest // 2 - 2
    return f"{text[:half]} … {text[-half:]}"
