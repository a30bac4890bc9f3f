# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pascal VOC annotation files: XML from strangers to objects with their line numbers.

Document types and entities are refused before anything is expanded.
"""

import xml.parsers.expat
from dataclasses import dataclass, field
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.codes import Code

MAX_BYTES = 32 * 2**20
MAX_DEPTH = 20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MORE = ("pose", "truncated", "occluded")


class XmlError(ValueError):
    """The file is not a readable annotation; `line` is None when the whole file is meant."""

    def __init__(self, code: Code, message: str, line: int | None = None):
        super().__init__(message)
        self.code, self.line = code, line


@dataclass(slots=True)
class VocObject:
    """One `object` element as written; texts are stripped, missing ones are None."""

    line: int
    name: str | None = None
    difficult: str | None = None
    corners: dict[str, str] = field(default_factory=dict)
    has_box: bool = False
    more: dict[str, str] = field(default_factory=dict)  # what else is told: pose, truncated, occluded
    parts: int = 0  # objects of its own inside it


@dataclass(slots=True)
class VocFile:
    """What an annotation file says."""

    width: str | None = None
    height: str | None = None
    objects: list[VocObject] = field(default_factory=list)


def parse_voc(path: Path) -> VocFile:
    """The objects of an annotation file.

    Raises:
        XmlError: too large, not XML, or XML with a document type or entities.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise XmlError(codes.XML_TOO_LARGE, f"{size:,} bytes; an annotation file has at most {MAX_BYTES:,}")
    handler = _Handler()
    try:
        handler.parser.Parse(path.read_bytes(), True)
    except xml.parsers.expat.ExpatError as error:
        reason = xml.parsers.expat.ErrorString(error.code)
        raise XmlError(codes.BAD_XML, f"not valid XML: {reason}", error.lineno) from None
    if handler.root != "annotation":
        raise XmlError(codes.BAD_XML, f"expected <annotation> as the outermost element, got <{handler.root}>")
    return handler.result


class _Handler:
    def __init__(self) -> None:
        self.result = VocFile()
        self.root: str | None = None
        self._path: list[str] = []
        self._text: list[str] = []
        self.parser = xml.parsers.expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        message = "document types and entities are refused: they can expand without limit or read other files"
        raise XmlError(codes.XML_ENTITIES, message, self.parser.CurrentLineNumber)

    def _start(self, tag: str, _: dict[str, str]) -> None:
        if self.root is None:
            self.root = tag
        self._path.append(tag)
        self._text.clear()
        if len(self._path) > MAX_DEPTH:
            raise XmlError(codes.BAD_XML, f"nested more than {MAX_DEPTH} levels deep", self.parser.CurrentLineNumber)
        if self._path[1:] == ["object"]:
            self.result.objects.append(VocObject(self.parser.CurrentLineNumber))
        elif self._path[1:] == ["object", "bndbox"]:
            self.result.objects[-1].has_box = True
        elif self._path[1:] == ["object", "part"]:
            self.result.objects[-1].parts += 1

    def _end(self, tag: str) -> None:
        text = "".join(self._text).strip()
        match self._path[1:]:
            case ["size", "width"]:
                self.result.width = text
            case ["size", "height"]:
                self.result.height = text
            case ["object", "name"]:
                self.result.objects[-1].name = text
            case ["object", "difficult"]:
                self.result.objects[-1].difficult = text
            case ["object", name] if name in _MORE:
                self.result.objects[-1].more[name] = text
            case ["object", "bndbox", corner] if corner in _CORNERS:
                self.result.objects[-1].corners[corner] = text
            case _:
                pass
        self._path.pop()
        self._text.clear()
