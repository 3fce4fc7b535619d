"""ImageNet (ILSVRC 2012) in the tar archives of its authors, read in place.

PATH is a folder with some of these, or one of the two archives:

    ILSVRC2012_img_train.tar      a tar of class tars, n01440764.tar ...: the split train;
                                  or the class tars themselves, in PATH or in PATH/train
    ILSVRC2012_img_val.tar        50,000 images: the split val; or val/n01440764/*.JPEG, as
                                  torchvision unpacks them, in a tar or in the folder val
    ILSVRC2012_devkit_t12.tar.gz  whose meta.mat and ILSVRC2012_validation_ground_truth.txt
                                  say the classes of val; or its folder, or these two files;
                                  or one of the text files of `_TABLES`

Classes are the WordNet ids, sorted, as in torchvision; any set of class tars that are named by
such ids is read. Images have the names that torchvision's folders give them, so that a set has
the same fingerprint packed and, as `folder:DIR`, unpacked.
"""

import functools
import io
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from input_pipeline import text_files
from input_pipeline.stores.archives import Archive
from input_pipeline.stores.image_files import is_image, key_of, list_files
from input_pipeline.stores.image_source import Source, make_meta
from input_pipeline.stores.places import (
    Member,
    Places,
    list_tar,
    make_places,
    source_of_places,
)
from sp_jax import progress
from sp_jax.errors import UserError

_TRAIN, _VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_META, _NUMBERS = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
# Lines with the name of an image and its WordNet id (Kaggle's table, your own), or with the id
# alone, for the images in order (TensorFlow's).
_TABLES = (
    "LOC_val_solution.csv",
    "val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "imagenet2012_validation_labels.txt",
)
_CLASS = re.compile(r"n\d{8}")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
_GET = f"get {_TRAIN} and, for the split val, {_VAL} and {_DEVKIT} from image-net.org"


class _Files(NamedTuple):
    """The files that were found."""

    root: pathlib.Path
    train: list[pathlib.Path]  # the tar of class tars, or these
    val: pathlib.Path | None  # the tar of images, or the folder of class folders
    labels: list[pathlib.Path]  # of val: the devkit, its two files, or a table


def scan(path: str) -> Source:
    """The images of ImageNet; UserError if they are not there, or val has no classes."""
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise UserError(
            f"There is no {place}: {_GET}, and give the path of the folder."
        )
    files = _find_files(place)
    used = [*files.train, *files.labels]
    if files.val is not None and files.val.is_dir():
        used += [files.val / file.name for file in list_files(files.val, _GET).files]
    elif files.val is not None:
        used.append(files.val)
    return source_of_places(
        f"imagenet-{place.resolve().name}",
        f"imagenet 1 {key_of(files.root, used)}",
        functools.partial(_find, files),
    )


def _find_files(place: pathlib.Path) -> _Files:
    if place.is_file():
        root = place.parent
        first = next(list_tar(place), Member("", 0, 0)).name
        is_train = first.endswith(".tar") or _CLASS.fullmatch(place.stem)
        train, val = ([place], None) if is_train else ([], place)
    else:
        root = place
        whole = [root / _TRAIN] if (root / _TRAIN).is_file() else []
        tars = [*root.glob("n*.tar"), *root.glob("train/n*.tar")]
        train = whole or sorted(p for p in tars if _CLASS.fullmatch(p.stem))
        val = next((p for p in (root / _VAL, root / "val") if p.exists()), None)
    if not train and (val is None or val.is_dir()):
        raise UserError(
            f"{place} holds no archive of ImageNet: {_GET}. If it is unpacked, name it "
            f"folder:{place}."
        )
    return _Files(root, train, val, _find_labels(root) if val is not None else [])


def _find_labels(root: pathlib.Path) -> list[pathlib.Path]:
    """The files with the classes of val; empty if its folders may give them."""
    for folder in (root, root / "data", root / "ILSVRC2012_devkit_t12" / "data"):
        if (folder / _META).is_file() and (folder / _NUMBERS).is_file():
            return [folder / _META, folder / _NUMBERS]
    return [path for name in (_DEVKIT, *_TABLES) if (path := root / name).is_file()][:1]


def _find(files: _Files) -> tuple[dict[str, Any], Places]:
    """The meta data of all images, and their places."""
    ids: list[str] = []
    classes: list[str | None] = []
    splits: dict[str, list[int]] = {}

    def note(split: str, wnid: str, member: Member) -> None:
        splits.setdefault(split, []).append(len(ids))
        ids.append(f"{split}/{wnid}/{member.name.rpartition('/')[2]}")
        classes.append(wnid)

    def parts() -> Iterator[tuple[pathlib.Path, list[Member]]]:
        for wnid, path, members in _train(files.train):
            for member in members:
                note("train", wnid, member)
            yield path, members
        for wnid, path, member in _val(files):
            note("val", wnid, member)
            yield path, [member]

    with progress.show(f"listing the archives in {files.root}"):
        places = make_places(parts())
    if not ids:
        raise UserError(f"{files.root} holds no images of ImageNet: {_GET}.")
    return make_meta(ids, classes, splits), places


def _train(
    paths: Iterable[pathlib.Path],
) -> Iterator[tuple[str, pathlib.Path, list[Member]]]:
    """Each class of train, sorted: its archive, and its images, sorted."""
    tars = [(path.stem, path, 0, None) for path in paths]
    if len(tars) == 1 and not _CLASS.fullmatch(tars[0][0]):
        (_, path, _, _), tars = tars[0], []
        for inner in list_tar(path):
            name = pathlib.PurePosixPath(inner.name)
            if name.suffix == ".tar" and _CLASS.fullmatch(name.stem):
                tars.append((name.stem, path, inner.start, inner.start + inner.size))
    for wnid, path, start, end in progress.track(sorted(tars), "", "class archives"):
        # If two files have one name, unpacking leaves the last one.
        members = {m.name: m for m in list_tar(path, start, end) if is_image(m.name)}
        yield wnid, path, sorted(members.values())


def _val(files: _Files) -> list[tuple[str, pathlib.Path, Member]]:
    """The images of val, sorted by class and name: class, file, and place in it."""
    if files.val is None:
        return []
    if files.val.is_dir():
        listed = list_files(files.val, _GET).files
        found = [(files.val / f.name, Member(f.name, 0, f.size)) for f in listed]
    else:
        members = {member.name: member for member in list_tar(files.val)}
        found = [(files.val, member) for member in members.values()]
    labels: dict[int, str] | None = None
    images = []
    for path, member in found:
        if not is_image(member.name):
            continue
        parts = member.name.split("/")
        number = _VAL_IMAGE.match(parts[-1])
        if len(parts) > 1 and _CLASS.fullmatch(parts[-2]):
            wnid = parts[-2]
        elif number and files.labels:
            labels = _read_labels(files) if labels is None else labels
            wnid = labels.get(int(number[1]), "")
        else:
            wnid = ""
        if not wnid:
            raise UserError(
                f"The class of {member.name} in {files.val} is unknown: put {_DEVKIT} "
                f"into {files.root}, or a file val.txt with lines such as "
                "'ILSVRC2012_val_00000001.JPEG n01751748'; or name the archive of train "
                f"alone, as in imagenet:{files.root / _TRAIN}."
            )
        images.append((wnid, path, member))
    return sorted(images, key=lambda image: (image[0], image[2].name.split("/")[-1]))


def _read_labels(files: _Files) -> dict[int, str]:
    """The class of each image of val, by the number in its name."""
    first = files.labels[0]
    if first.name in _TABLES:
        return _read_table(first)
    place = first if first.name == _DEVKIT else first.parent
    archive = Archive("the devkit of ImageNet", f"image-net.org ({_DEVKIT})", place)
    with archive.told():
        names = (_META, _NUMBERS)
        read = {name: f.read() for name, _, f in archive.files() if name in names}
        return _join(read[_META], read[_NUMBERS])


def _join(meta: bytes, numbers: bytes) -> dict[int, str]:
    """The classes from the devkit's own numbers, which are not in the order of the ids."""
    import scipy.io  # Takes a second; jax needs it, so it is there.

    synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    both = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
    wnids = {int(number): str(wnid) for number, wnid in both}
    lines = numbers.decode().split()
    return {row: wnids[int(number)] for row, number in enumerate(lines, 1)}


def _read_table(path: pathlib.Path) -> dict[int, str]:
    labels: dict[int, str] = {}
    lines = text_files.read_lines(path.read_bytes(), path)
    for place, line in enumerate(lines, 1):
        wnids, images = set(_CLASS.findall(line)), _VAL_IMAGE.findall(line)
        if not line.strip() or (place == 1 and path.suffix == ".csv" and not wnids):
            continue
        if len(wnids) != 1 or len(images) > 1:
            raise UserError(
                f"{path}, line {place}, must have one WordNet id such as n01751748 (class "
                "numbers exist in several orders, so they are not read): write lines such "
                f"as 'ILSVRC2012_val_00000001.JPEG n01751748', or put {_DEVKIT} there."
            )
        labels[int(images[0]) if images else len(labels) + 1] = wnids.pop()
    return labels
