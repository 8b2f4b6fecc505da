"""The description of the HTTP door, and whether an answer agrees with it.

Of JSON Schema as much is read as is used; what is not known here fails.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from http_house import Answer

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
    "null": type(None),
    "boolean": bool,
}
_KNOWN = frozenset(
    (
        *("type", "enum", "required", "properties", "additionalProperties", "items", "oneOf"),
        *("minLength", "minimum", "maximum", "pattern", "format", "description", "anyOf"),
        *("$ref", "contentEncoding"),
    )
)


class Description:
    """The document, and whether what was answered agrees with it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def at(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a reference."""
        while "$ref" in part:
            found: Any = self.document
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            part = found
        return part

    def faults(self, schema: Mapping[str, Any], value: object, where: str = "") -> Iterator[str]:
        """Yield what is wrong with a value (JSON Schema, as much of it as is used)."""
        schema = self.at(schema)
        assert schema.keys() <= _KNOWN, schema
        if "oneOf" in schema:
            fitting = [one for one in schema["oneOf"] if not [*self.faults(one, value)]]
            if len(fitting) != 1:
                yield f"{where}: fits {len(fitting)} of oneOf"
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is not one of {schema['enum']}"
        if "type" in schema:
            if isinstance(value, bool) or not isinstance(value, _TYPES[schema["type"]]):
                yield f"{where}: {schema['type']} expected, not {value!r}"
                return
            yield from self._faults_inside(schema, value, where)

    def _faults_inside(self, schema: Mapping[str, Any], value: Any, where: str) -> Iterator[str]:
        if isinstance(value, str):
            if len(value) < schema.get("minLength", 0):
                yield f"{where}: too short"
            if schema.get("format") == "date-time" and not TIME.fullmatch(value):
                yield f"{where}: {value!r} is no time"
        elif isinstance(value, int) and value < schema.get("minimum", value):
            yield f"{where}: {value} is too small"
        elif isinstance(value, list):
            for number, one in enumerate(value):
                yield from self.faults(schema["items"], one, f"{where}[{number}]")
        elif isinstance(value, dict):
            properties = schema.get("properties", {})
            for name in {*schema.get("required", ())} - value.keys():
                yield f"{where}.{name} is missing"
            for name, one in value.items():
                if name in properties:
                    yield from self.faults(properties[name], one, f"{where}.{name}")
                elif not schema.get("additionalProperties", True):
                    yield f"{where}.{name} is not told of"

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Fail when an answer is none that is described for this path and method."""
        responses = self.document["paths"][path][method]["responses"]
        told = self.at(responses.get(str(answer.status), responses["default"]))
        [(kind, content)] = told["content"].items()
        assert answer.fields["content-type"] == kind
        for name, field in told.get("headers", {}).items():
            value = answer.fields[name.lower()]
            schema = self.at(self.at(field)["schema"])
            read: object = int(value) if schema["type"] == "integer" else value
            assert not [*self.faults(schema, read, name)]
        said = answer.lines if kind.endswith("ndjson") else [answer.json]
        for one in said:
            assert not [*self.faults(content["schema"], one)], one
