"""Printing to a terminal whose encoding lacks characters, such as the lines of tables."""

import codecs
import unicodedata

#: the name of the error handler, for `stream.reconfigure(errors=...)`
IN_ASCII = "nnlite-in-ascii"
_ASCII = {"×": "x", "–": "-", "—": "-", "…": "...", "µ": "u"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What replaces characters that the encoding lacks: lines of tables as +-|, unknown ones as "?"."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_nearest, error.object[error.start : error.end])), error.end


def _nearest(character: str) -> str:
    kind, _, line = unicodedata.name(character, "").partition("BOX DRAWINGS ")
    if kind or not line:
        return _ASCII.get(character, "?")
    return "+" if " AND " in line else "-" if line.endswith("HORIZONTAL") else "|" if line.endswith("VERTICAL") else "+"


codecs.register_error(IN_ASCII, _in_ascii)
