"""Read annotations of PASCAL VOC: XML with the objects of an image.

Corners are counted from 1 and belong to the box, so a box of VOC is [xmin - 1, xmax] wide.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import math
import pathlib
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from eval.detection.data.box_store import Annotation
from sp_jax.errors import UserError

_CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
_FLAGS = {"1": True, "true": True, "yes": True}
_FLAGS |= {"": False, "0": False, "false": False, "no": False}


def read_annotation(path: pathlib.Path) -> Annotation:
    """Read one file of annotations; UserError if it is missing, or not in VOC's form."""
    try:
        root = _parse(path.read_bytes())
        height, width = (_number(root, f"size/{side}") for side in ("height", "width"))
        objects = root.findall("object")
        names = [_text(one, "name") for one in objects]
        corners = [[_number(one, side) for side in _CORNERS] for one in objects]
        difficult = np.array([_difficult(one) for one in objects], bool)
    except OSError:
        raise UserError(f"{path} is missing or not readable: restore it.") from None
    except (ValueError, LookupError, expat.ExpatError) as error:
        raise UserError(
            f"{path} is not an annotation of VOC ({error}): correct or restore it."
        ) from error
    boxes = np.array(corners, np.float64).reshape(-1, 4) - [1, 1, 0, 0]
    id, size = f"{path.parts[-3]}/{path.stem}", (int(height), int(width))
    return Annotation(id, size, names, boxes.astype(np.float32), difficult)


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path, "").strip()
    if not text:
        raise ValueError(f"{element.tag}/{path} is missing")
    return text


def _difficult(element: ElementTree.Element) -> bool:
    """The flag "difficult" of an object, in any spelling; without it the object is easy."""
    texts = ["".join(one.itertext()) for one in element.iter("difficult")]
    texts += [text for name, text in element.items() if name.lower() == "difficult"]
    flags = {_FLAGS.get(text.strip().lower()) for text in texts} or {False}
    if len(flags) > 1 or None in flags:
        raise ValueError(f"{element.tag}/difficult is {texts} instead of 0 or 1")
    return flags.pop()


def _number(element: ElementTree.Element, path: str) -> float:
    text = _text(element, path)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{element.tag}/{path} is {text!r} instead of a number")
    return number


def _parse(content: bytes) -> ElementTree.Element:
    """Parse XML without a document type, and so without its own entities."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_):
        raise ValueError("it declares a document type, which is not allowed")

    parser.StartDoctypeDeclHandler = refuse
    # In lower case: <Difficult> must not be overlooked.
    parser.StartElementHandler = lambda tag, all: builder.start(tag.lower(), all)
    parser.EndElementHandler = lambda tag: builder.end(tag.lower())
    parser.CharacterDataHandler = builder.data
    parser.Parse(content, True)
    return builder.close()
