"""How a text table is written: its encoding, and the character between its columns."""

import codecs

_DELIMITERS = ",\t;|"
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}

GUESSED = "Latin-1, as it is not UTF-8"
"""What the user is told about a text whose encoding was guessed."""


def encoding_of(head: bytes) -> str:
    """``utf-16-le`` or ``utf-16-be`` by the byte order mark in the first bytes, else ``utf-8``."""
    return _UTF_16.get(head[:2], "utf-8")


def decode(data: bytes, encoding: str) -> tuple[str, bool]:
    """The text of some bytes, and whether its encoding is a guess.

    Text that is not valid UTF-8 is read as Windows-1252, a superset of the printable characters of
    Latin-1 that Excel writes in Western countries.
    """
    try:
        return data.decode(encoding), False
    except UnicodeDecodeError:
        if encoding != "utf-8":
            return data.decode(encoding, "replace"), True
    try:
        return data.decode("cp1252"), True
    except UnicodeDecodeError:
        return data.decode("latin-1"), True


def as_utf8(data: bytes) -> tuple[bytes, str | None]:
    """A whole text in UTF-8 without a byte order mark.

    Returns:
        The bytes, and the encoding that was found or guessed, for the user; None for UTF-8.
    """
    encoding = encoding_of(data)
    text, is_guess = decode(data, encoding)
    if encoding == "utf-8" and not is_guess:
        return data.removeprefix(codecs.BOM_UTF8), None
    plain = text.removeprefix("\ufeff").encode("utf-8", "backslashreplace")
    return plain, "UTF-16" if encoding != "utf-8" else GUESSED


def delimiter_of(header: str) -> str:
    """The character between columns: of comma, tab, semicolon and bar the most frequent one."""
    unquoted = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=unquoted.count)
