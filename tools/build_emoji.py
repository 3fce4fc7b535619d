"""Rebuild the embedded image set `input_pipeline/emoji/emoji_core5.zip`.

The drawings come from pinned public npm packages, most of them repackaged SVG sets;
names and categories from emoji-datasource. NOTICE holds the credits and licences.

Needs npm (`apt-get install npm`) to fetch the packages, and resvg to draw the SVGs:

    pip install resvg_py==0.5.0 pillow numpy
    python tools/build_emoji.py --packages build/packages --out build/emoji_core5.zip

`--compare OLD.zip` prints how the result differs from an earlier archive (not in a
single byte of any file, with Pillow 13.0 and the shipped one).

The concepts are those of Unicode 16 without skin tones and country flags; sets that
come without code points are matched by name. Each artist's tiles make one WebP sheet.
"""

import argparse
import io
import json
import pathlib
import re
import subprocess
import tarfile
import zipfile
from typing import Any

import numpy as np
from PIL import Image

TILE, COLUMNS = 64, 64
PACKAGES = {
    "datasource": "emoji-datasource@16.0.0",
    "noto": "@iconify-json/noto@1.2.9",
    "noto_v1": "@iconify-json/noto-v1@1.2.5",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "emojione_v2": "@iconify-json/emojione@1.2.3",
    "fluent_flat": "@iconify-json/fluent-emoji-flat@1.2.6",  # Only its names are used.
    "fluent_3d": "@lobehub/fluent-emoji-3d@1.1.0",
}
LICENCES = {
    "noto": "Apache-2.0 Google Noto Emoji",
    "noto_v1": "Apache-2.0 Google Noto Emoji (2016-17 blob art)",
    "twemoji": "CC-BY-4.0 Twitter and contributors (jdecked fork)",
    "fluent_3d": "MIT Microsoft Fluent Emoji",
    "emojione_v2": "CC-BY-4.0 EmojiOne 2.x / EmojiTwo",
}
# Two emoji come in two files, with and without variation selectors: the unused ones.
FLUENT_UNUSED = {"1f441-200d-1f5e8", "26a7-fe0f"}
Files = dict[str, bytes]
Drawings = dict[str, np.ndarray]  # code point -> uint8 [64, 64, 4]


def fetch(spec: str, directory: pathlib.Path) -> Files:
    """The files of an npm package, packed into `directory` on the first call."""
    name, _, version = spec.rpartition("@")
    path = directory / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", spec, "--silent"], cwd=directory, check=True)
    wanted = re.compile(r"package/((icons|chars|emoji)\.json|assets/.*\.webp)")
    with tarfile.open(path) as archive:
        members = [m for m in archive if wanted.fullmatch(m.name)]
        names = [m.name.removeprefix("package/") for m in members]
        contents = [archive.extractfile(m).read() for m in members]
    return dict(zip(names, contents, strict=True))


def code_key(code: str) -> str:
    """Lower-case code points without the variation selector: "2764-FE0F" -> "2764"."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def name_key(name: str) -> str:
    """Letters and digits only, so that differently punctuated names agree."""
    name = re.sub(r"^flag-for-(flag-)?", "flag-", name.lower())
    return re.sub(r"[^a-z0-9]", "", name.replace("&", "and"))


def group_name(name: str) -> str:
    """One name for a concept's gender and direction variants."""
    words = r"\b(wo)?man\b|\bperson\b|\b(wo)?men\b|\bpeople\b"
    return re.sub(r" facing right", "", re.sub(words, "person", name.lower())).strip()


def read_concepts(files: Files) -> dict[str, dict[str, Any]]:
    """Code point -> entry of emoji-datasource, in Unicode's order."""
    entries = sorted(json.loads(files["emoji.json"]), key=lambda e: e["sort_order"])
    left_out = ("country-flag", "subdivision-flag", "skin-tone")
    kept = [entry for entry in entries if entry["subcategory"] not in left_out]
    return {code_key(entry["unified"]): entry for entry in kept}


def name_to_code(packages: dict[str, Files]) -> dict[str, str]:
    """Names of all sets -> code points; the first set that knows a name decides."""
    codes: dict[str, str] = {}
    for artist in ("twemoji", "fluent_flat", "noto"):
        for code, name in json.loads(packages[artist]["chars.json"]).items():
            codes.setdefault(name_key(name), code_key(code))
    for entry in json.loads(packages["datasource"]["emoji.json"]):
        for name in (entry["name"] or "", *entry["short_names"]):
            codes.setdefault(name_key(name), code_key(entry["unified"]))
    # An alias and its parent are one emoji, unless the alias is a mirror image.
    for artist in ("twemoji", "noto", "noto_v1", "emojione_v2"):
        icons = json.loads(packages[artist]["icons.json"])
        for alias, target in icons.get("aliases", {}).items():
            if target.keys() & {"hFlip", "vFlip", "rotate"}:
                continue
            here, there = name_key(alias), name_key(target["parent"])
            known = codes.get(there) or codes.get(here)
            if known:
                codes.setdefault(here, known)
                codes.setdefault(there, known)
    return codes


def svg_text(icons: dict[str, Any], name: str) -> str:
    """A whole SVG file of an icon, padded to a square."""
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    side = max(width, height)
    left = icon.get("left", 0) - (side - width) / 2
    top = icon.get("top", 0) - (side - height) / 2
    w3 = "http://www.w3.org"
    spaces = f'xmlns="{w3}/2000/svg" xmlns:xlink="{w3}/1999/xlink"'
    box = f'viewBox="{left} {top} {side} {side}" width="{TILE}" height="{TILE}"'
    return f'<svg {spaces} {box} color="#000">{icon["body"]}</svg>'


def draw_svg(text: str) -> np.ndarray:
    """Rasterise at 64x64: uint8 [64, 64, 4]."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=text, width=TILE, height=TILE, skip_system_fonts=True
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def draw_iconify(files: Files, concepts: dict, codes: dict[str, str]) -> Drawings:
    """The drawings of an Iconify set."""
    icons = json.loads(files["icons.json"])
    icon_of = {code_key(c): n for c, n in json.loads(files["chars.json"]).items()}
    if not icon_of:
        for name in sorted(icons["icons"]):
            if name_key(name) in codes:
                icon_of.setdefault(codes[name_key(name)], name)
    drawings = {}
    for code, name in icon_of.items():
        if name not in icons["icons"]:
            name = icons.get("aliases", {}).get(name, {}).get("parent")
        if code in concepts and name in icons["icons"]:
            drawings[code] = draw_svg(svg_text(icons, name))
    return drawings


def draw_fluent(files: Files, concepts: dict) -> Drawings:
    """The 3-D renders, resized with premultiplied alpha (no dark fringes)."""
    drawings: Drawings = {}
    for name, content in files.items():
        stem = pathlib.PurePosixPath(name).stem
        code = code_key(stem)
        used = name.endswith(".webp") and stem not in FLUENT_UNUSED
        if used and code in concepts:
            image = Image.open(io.BytesIO(content)).convert("RGBA").convert("RGBa")
            image = image.resize((TILE, TILE), Image.Resampling.LANCZOS)
            drawings[code] = np.asarray(image.convert("RGBA"))
    return drawings


def write_sheet(tiles: list[np.ndarray]) -> bytes:
    """Tiles [64, 64, 4] row by row as one WebP image."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * TILE, rows * TILE))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, COLUMNS)
        sheet.paste(Image.fromarray(tile), (column * TILE, row * TILE))
    content = io.BytesIO()
    sheet.save(content, "WEBP", quality=80, method=6, alpha_quality=60)
    return content.getvalue()


def build(packages: dict[str, Files], out: pathlib.Path) -> None:
    """Draw every concept by every artist and write the archive."""
    concepts = read_concepts(packages["datasource"])
    codes = name_to_code(packages)
    index = {"tile": TILE, "cols": COLUMNS, "licences": LICENCES, "concepts": []}
    for code, entry in concepts.items():
        name, kind = entry["name"], f"{entry['category']}/{entry['subcategory']}"
        index["concepts"].append([code, name, kind, group_name(name)])
    index["sheets"] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w") as archive:
        for artist in LICENCES:
            if artist == "fluent_3d":
                drawings = draw_fluent(packages[artist], concepts)
            else:
                drawings = draw_iconify(packages[artist], concepts, codes)
            # Blank drawings: a set's placeholders, or SVG that resvg cannot draw.
            kept = {c: d for c, d in drawings.items() if d[..., 3].max() >= 32}
            chosen = [number for number, c in enumerate(concepts) if c in kept]
            index["sheets"][artist] = chosen
            content = write_sheet([kept[c] for c in concepts if c in kept])
            # ZipInfo, because it has a fixed date: same input, same archive.
            archive.writestr(zipfile.ZipInfo(f"{artist}.webp"), content)
            print(f"{artist}: {len(chosen)} drawings, {len(content)} bytes")
        info, text = zipfile.ZipInfo("index.json"), json.dumps(index, separators=",:")
        archive.writestr(info, text, zipfile.ZIP_DEFLATED)


def on_white(sheet: bytes) -> np.ndarray:
    """A sheet's pixels composited on white."""
    image = Image.open(io.BytesIO(sheet)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image), np.float64)[..., :3]


def compare(new: pathlib.Path, old: pathlib.Path) -> None:
    """Print whether each file is the same, and the PSNR of sheets on white."""
    with zipfile.ZipFile(new) as first, zipfile.ZipFile(old) as second:
        for name in second.namelist():
            pair = [archive.read(name) for archive in (first, second)]
            note = "same bytes" if pair[0] == pair[1] else "DIFFERENT"
            if pair[0] != pair[1] and name.endswith(".webp"):
                images = [on_white(sheet) for sheet in pair]
                if images[0].shape == images[1].shape:
                    error = max(np.mean((images[0] - images[1]) ** 2), 1e-9)
                    note += f", PSNR {10 * np.log10(255**2 / error):.1f} dB"
            print(f"{name}: {note}")


def main() -> None:
    """Parse the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--compare", type=pathlib.Path, help="an earlier archive")
    options = parser.parse_args()
    packages = {key: fetch(spec, options.packages) for key, spec in PACKAGES.items()}
    build(packages, options.out)
    if options.compare:
        compare(options.out, options.compare)


if __name__ == "__main__":
    main()
