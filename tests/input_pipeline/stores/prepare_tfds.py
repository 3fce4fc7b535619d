"""Small sets of TensorFlow Datasets, prepared by the real builders through the program
`input_pipeline.prepare`: needs TensorFlow.

    python -m tests.input_pipeline.stores.prepare_tfds DATA_DIR

The archives are made here in the sets' own binary formats, of shipped drawings. These are
also in DATA_DIR/drawings.npy, uint8 [8, 96, 96, 3]; and VOC is in DATA_DIR/VOCdevkit.
"""

import io
import os
import pathlib
import sys
import tarfile

import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from PIL import Image
from tensorflow_datasets.core.download import resource

from input_pipeline import prepare
from input_pipeline.stores import emoji
from sp_jax import cli

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
STL10 = "airplane bird car cat deer dog horse monkey ship truck".split()


def drawings(count, side):
    """uint8 [count, side, side, 3]."""
    tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())[:count]
    return np.stack(
        [
            np.asarray(
                Image.fromarray(
                    emoji.composite(tile, np.full(3, 200, np.uint8))
                ).resize((side, side))
            )
            for tile in tiles
        ]
    )


def rows(images, *labels):
    """CIFAR's rows: the labels, then red, green and blue planes."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([np.transpose(labels).astype(np.uint8), planes], 1).tobytes()


def cifar10():
    images, top = drawings(8, 32), "cifar-10-batches-bin"
    files = {f"{top}/batches.meta.txt": "\n".join(CIFAR10).encode()}
    for i in range(5):
        files[f"{top}/data_batch_{i + 1}.bin"] = rows(images[i : i + 1], [i])
    files[f"{top}/test_batch.bin"] = rows(images[5:], [9, 8, 7])
    return {"cifar-10-binary.tar.gz": files}


def cifar100():
    images, top = drawings(4, 32), "cifar-100-binary"
    coarse, fine = [f"coarse{i}" for i in range(20)], [f"fine{i}" for i in range(100)]
    return {
        "cifar-100-binary.tar.gz": {
            f"{top}/coarse_label_names.txt": "\n".join(coarse).encode(),
            f"{top}/fine_label_names.txt": "\n".join(fine).encode(),
            f"{top}/train.bin": rows(images[:3], [19, 0, 3], [99, 1, 17]),
            f"{top}/test.bin": rows(images[3:], [5], [50]),
        }
    }


def stl10():
    """Planes column by column; labels from 1; the unlabelled images have none."""
    planes, top = drawings(8, 96).transpose(0, 3, 2, 1), "stl10_binary"
    return {
        "stl10_binary.tar.gz": {
            f"{top}/class_names.txt": "\n".join(STL10).encode(),
            f"{top}/train_X.bin": planes[:2].tobytes(),
            f"{top}/train_y.bin": bytes([1, 10]),
            f"{top}/test_X.bin": planes[2:4].tobytes(),
            f"{top}/test_y.bin": bytes([3, 4]),
            f"{top}/unlabeled_X.bin": planes[4:].tobytes(),
        }
    }


OBJECT = """<object><name>{}</name><pose>Left</pose><truncated>0</truncated>
<difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""
# Corners count from 1; VOC 2012 has some with fractions.
VOC = {
    "VOC2007": {
        "VOCtrainval_06-Nov-2007.tar": {"train": ["000001"], "val": ["000002"]},
        "VOCtest_06-Nov-2007.tar": {"test": ["000003"]},
    },
    "VOC2012": {
        "VOCtrainval_11-May-2012.tar": {
            "train": ["2008_000004"],
            "val": ["2008_000005"],
        },
        "VOC2012test.tar": {"test": ["2008_000006"]},
    },
}


def voc(year):
    """Images of several sizes; those of the test of 2012 have no annotations."""
    archives = {}
    for archive, parts in VOC[year].items():
        files, top = {}, f"VOCdevkit/{year}"
        for part, names in parts.items():
            files[f"{top}/ImageSets/Main/{part}.txt"] = "\n".join(names).encode()
            for name in names:
                number = int(name[-6:])
                height = 96 if number < 4 else 60 + number
                image = Image.fromarray(drawings(6, 96)[number - 1])
                file = io.BytesIO()
                image.resize((96, height)).save(file, "JPEG", quality=95)
                files[f"{top}/JPEGImages/{name}.jpg"] = file.getvalue()
                size = f"<size><width>96</width><height>{height}</height></size>"
                objects = [
                    OBJECT.format("cat", 0, 8 + number, 16, 48, 61),
                    OBJECT.format("tvmonitor", 1, 1, 1.7, 95.3, height),
                ][: 1 + number % 2]
                text = f"<annotation>{size}{''.join(objects)}</annotation>"
                if archive != "VOC2012test.tar":
                    files[f"{top}/Annotations/{name}.xml"] = text.encode()
        archives[archive] = files
    return archives


def put_archives(data_dir, name, archives):
    """Put the archives where the builder looks for what it has downloaded."""
    builder = tfds.builder(name, data_dir=data_dir)
    downloads = data_dir / "downloads"
    downloads.mkdir(exist_ok=True)
    for url, info in builder.url_infos.items():
        if info.filename in archives:
            path = downloads / resource.get_dl_fname(url, info.checksum)
            with tarfile.open(
                path, "w:gz" if info.filename.endswith("gz") else "w"
            ) as tar:
                for file, content in archives[info.filename].items():
                    member = tarfile.TarInfo(file)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
            resource.write_info_file(url, path, name, info.filename, info)
    return builder


def run_prepare(*options):
    """What `python -m input_pipeline.prepare` does; TensorFlow is loaded only once."""
    flags.FLAGS(["prepare", *options])
    return cli.guard(prepare.prepare)


def main(data_dir):
    os.environ["TFDS_DATA_DIR"] = str(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    np.save(data_dir / "drawings.npy", drawings(8, 96))
    for year in VOC:
        for files in voc(year).values():
            for file, content in files.items():
                (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
                (data_dir / file).write_bytes(content)
    for name, archives in {
        "cifar10": cifar10(),
        "cifar100": cifar100(),
        "stl10": stl10(),
        "voc/2007": voc("VOC2007"),
        "voc/2012": voc("VOC2012"),
    }.items():
        builder = put_archives(data_dir, name, archives)
        if name == "cifar100":  # As others prepared it; it is converted.
            builder.download_and_prepare(download_dir=data_dir / "downloads")
            assert builder.info.file_format.value == "tfrecord"
        images = data_dir / "images"
        options = (f"--store=tfds:{name}", "--image_size=8", f"--data_dir={images}")
        assert run_prepare(*options) == 0, name


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
