"""Writes `schema.json`, the JSON Schema of every line, from the classes that lines are made of.

    python docs/build_schema.py           # writes it
    python docs/build_schema.py --check   # exits 1 if it is not current

Types come from msgspec, descriptions from docstrings, units from the ends of names.
"""
# ruff: noqa: INP001 - a script, part of no package

import ast
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from amsha_async_log import events, records

TARGET: Final = Path(__file__).with_name("schema.json")
WIDTH: Final = 120
UNITS: Final = {
    "_seconds": "seconds",
    "_bytes": "bytes",
    "_mb": "MB of 2^20 bytes",
    "_usd": "US dollars",
    "_percent": "percent",
    "_celsius": "degrees Celsius",
    "_watts": "watts",
    "_joules": "joules",
    "_cores": "cores",
    "_tokens": "tokens",
    "_time": "Unix seconds",
    "_start": "Unix seconds",
    "_since": "Unix seconds",
    "_timestamp": "Unix seconds",
}
"""By the end of a name with an underscore before it."""

DESCRIPTION: Final = """One line of a log is one JSON object. Its envelope is always there; `event` says what else is.
An event that is not described here is valid: programs have events of their own, and newer versions more. So is any
additional property. On a line with `log_degraded` the values it names are strings that stand for what could not be
written, so that only envelope and context are described. Properties at their default are left out of the line."""

TEXT: Final = {"type": "string"}
ENVELOPE: Final[dict[str, Any]] = {
    "event": {"description": "`log`: a plain line. `log.*`: the log about itself. Else: the tag of an event.", **TEXT},
    "timestamp": {"description": "When the call was made, to the microsecond.", "type": "number"},
    "level": {"description": "How serious it is.", "enum": list(records.LEVELS)},
    "logger": {"description": "Dotted name of the logger.", **TEXT},
    "message": {"description": "On plain lines and those of the log itself.", **TEXT},
    "writer": {"description": "One log of one process.", **TEXT, "pattern": "^[0-9a-z]{8}$"},
    "seq": {"description": "From 1, without gaps, on every line of the writer.", "type": "integer", "minimum": 1},
}
CONTEXT: Final[dict[str, Any]] = {
    "execution_id": {
        "description": "The execution it belongs to: a UUID of version 7, or the program's own id.",
        **TEXT,
    },
    "crew_name": {"description": "What that execution runs.", **TEXT},
    "step_id": {"description": "The innermost step it belongs to.", **TEXT},
    "trace_id": {"description": "W3C trace id of the request it belongs to, 32 hexadecimal digits.", **TEXT},
    "error_type": {"description": "Name of the class of an exception.", "type": ["string", "null"]},
    "error_message": {"description": "What that exception says.", "type": ["string", "null"]},
    "stacktrace": {"$ref": "#/$defs/Stacktrace"},
    "log_degraded": {
        "description": "Names of fields with a value that could not be written as it was, and why.",
        "type": "object",
        "additionalProperties": TEXT,
    },
}
STACKTRACE: Final[dict[str, Any]] = {
    "Stacktrace": {
        "description": "An exception, where it was raised and what had led to it. Local variables are never recorded.",
        "type": "object",
        "required": ["frames"],
        "properties": {
            "type": {"description": "Name of its class.", **TEXT},
            "message": {"description": "What it says.", **TEXT},
            "notes": {"description": "What was added by `add_note`.", "type": "array", "items": TEXT},
            "frames": {"description": "Outermost first.", "type": "array", "items": {"$ref": "#/$defs/Frame"}},
            "cause": {"description": "What it was raised from.", "$ref": "#/$defs/Stacktrace"},
            "context": {"description": "What was being handled when it was raised.", "$ref": "#/$defs/Stacktrace"},
            "exceptions": {
                "description": "Those a group holds.",
                "type": "array",
                "items": {"$ref": "#/$defs/Stacktrace"},
            },
            "omitted": {"description": "How many more the group holds.", "type": "integer"},
        },
    },
    "Frame": {
        "description": "One call on the stack, or how many were left out.",
        "type": "object",
        "properties": {
            "file": {"description": "Path of the source file.", **TEXT},
            "line": {"description": "Number of the line in it.", "type": "integer"},
            "function": {"description": "Qualified name.", **TEXT},
            "code": {"description": "That line.", **TEXT},
            "omitted": {"description": "How many frames were left out here.", "type": "integer"},
        },
        "oneOf": [{"required": ["file", "line", "function"]}, {"required": ["omitted"]}],
    },
}
PLAIN: Final[dict[str, Any]] = {
    "description": "A line of `debug`, `info`, `warning`, `error`, `critical`, `exception` or `log`. Its keywords are "
    "properties; those that have the name of a property of an event should mean the same.",
    "required": ["message"],
}


def structs(module: Any) -> list[type[Struct]]:
    """The classes of a module's lines."""
    named = [getattr(module, name) for name in module.__all__]
    return [each for each in named if isinstance(each, type) and issubclass(each, Struct) and _tag(each)]


def _tag(kind: type[Struct]) -> str:
    return str(kind.__struct_config__.tag or "")


def prose(docstring: str | None) -> str:
    """A docstring on one line."""
    return " ".join((docstring or "").split())


def docstrings(kind: type) -> dict[str, str]:
    """The docstrings of a class's attributes, inherited ones included."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        if each.__module__.startswith("amsha_async_log"):
            found |= _own_docstrings(each)
    return found


def _own_docstrings(kind: type) -> dict[str, str]:
    tree = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    found: dict[str, str] = {}
    for attribute, text in pairwise(body):
        if (
            isinstance(attribute, ast.AnnAssign)
            and isinstance(attribute.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[attribute.target.id] = prose(str(text.value.value))
    return found


def unit_of(name: str) -> str | None:
    """The unit of a property, by its name."""
    return next((unit for end, unit in UNITS.items() if f"_{name}".endswith(end)), None)


def _property(name: str, made: dict[str, Any], description: str) -> dict[str, Any]:
    """One property: what msgspec says of its type, with what the docstring says."""
    kinds = [each.get("type") for each in made.get("anyOf", ())]
    if kinds and all(kinds) and all(len(each) == 1 for each in made["anyOf"]):
        made = {"type": kinds, **{key: value for key, value in made.items() if key != "anyOf"}}
    unit = unit_of(name)
    numeric = {"integer", "number"} & {*kinds, made.get("type") if not kinds else None}
    return {"description": description, **({"unit": unit} if unit and numeric else {}), **made}


def _definition(kind: type[Struct], made: dict[str, Any]) -> dict[str, Any]:
    """One class. Required is what is always on its line."""
    described = docstrings(kind)
    properties: dict[str, Any] = {"event": {"const": _tag(kind)}} if _tag(kind) else {}
    required: list[str] = []
    for field in msgspec.structs.fields(kind):
        about = _property(field.encode_name, made["properties"][field.encode_name], described.get(field.name, ""))
        written_anyway = field.default_factory is not msgspec.NODEFAULT
        if written_anyway:
            about["default"] = field.default_factory()
        if field.required or written_anyway or not kind.__struct_config__.omit_defaults:
            required.append(field.encode_name)
        properties[field.encode_name] = about
    return {"description": prose(kind.__doc__), "type": "object", "required": required, "properties": properties}


def build() -> dict[str, Any]:
    """The whole schema."""
    typed, own = structs(events), structs(records)
    _, made = msgspec.json.schema_components([*typed, *own], ref_template="#/$defs/{name}")
    described: list[type[Struct]] = [*typed, *own, records.Totals]
    definitions = {kind.__name__: _definition(kind, made[kind.__name__]) for kind in described}
    for kind in typed:
        definitions[kind.__name__]["properties"]["message"] = False
    for kind in own:
        definitions[kind.__name__]["required"].append("message")
    definitions["SegmentClosed"]["required"].append("line_crc32")
    definitions["SegmentClosed"]["properties"]["line_crc32"] = {
        "description": "CRC-32 (zlib) of this line up to this key.",
        "type": "integer",
    }
    by_event = {"log": "PlainLine", **{_tag(kind): kind.__name__ for kind in [*typed, *own]}}
    envelope = {name: _property(name, about, about["description"]) for name, about in ENVELOPE.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:amsha-async-log:line:{records.SCHEMA_VERSION}",
        "title": f"A line of amsha_async_log, version {records.SCHEMA_VERSION}",
        "description": prose(DESCRIPTION),
        "type": "object",
        "required": [name for name in ENVELOPE if name != "message"],
        "properties": {**envelope, **CONTEXT},
        "if": {"required": ["log_degraded"]},
        "else": {
            "allOf": [
                {"if": {"properties": {"event": {"const": event}}}, "then": {"$ref": f"#/$defs/{name}"}}
                for event, name in by_event.items()
            ]
        },
        "$defs": {"PlainLine": PLAIN, **definitions, **STACKTRACE},
    }


def text(value: Any, indent: str = "") -> str:
    """JSON with as much on a line as fits."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) < WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {text(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{inner}{text(each, inner)}" for each in value) + f"\n{indent}]"


def main(arguments: list[str]) -> int:
    """Write the schema or, with `--check`, say whether it is current."""
    wanted = text(build()) + "\n"
    if arguments == ["--check"]:
        current = TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted
        if not current:
            sys.stderr.write(f"{TARGET} is not current; run: python docs/build_schema.py\n")
        return 0 if current else 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
