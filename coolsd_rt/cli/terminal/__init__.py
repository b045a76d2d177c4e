"""What reaches a terminal: the one room that prints, for commands of every room.

A name from a file, a prompt or a library's message may hold control characters; here each becomes a visible escape.
Knows streams and errors. Does not know verbs, specs or engines.
"""

from coolsd_rt.cli.terminal.output import complain, note, print_json, say, say_lines, say_part, show_fields, show_table
from coolsd_rt.cli.terminal.text import visible

__all__ = ["complain", "note", "print_json", "say", "say_lines", "say_part", "show_fields", "show_table", "visible"]
