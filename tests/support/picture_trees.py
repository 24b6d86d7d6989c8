"""Small trees of pictures in exactly the layouts that the archives of public data sets unpack to."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
THINGS = ("Faces", "Faces_easy", "accordion", "airplanes")
NUMBERED = ("001.ak47", "056.dog", "145.motorbikes-101", "198.spider")
ROOMS = ("airport_inside", "inside_bus", "tv_studio")
# in the order of the real file, which is not the alphabetical one
WNIDS = {"n02124075": "Egyptian cat", "n01443537": "goldfish, Carassius auratus", "n04067472": "reel"}
NETTE = ("n01440764", "n03000684", "n03888257")


def picture(file: Path, seed: int, *, grey: bool = False) -> Path:
    """A small JPEG file of noise; the same for the same seed, and of one of a few sizes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width = 9 + seed % 2, 12 - seed % 3
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    file.write_bytes(stream.getvalue())
    return file


def cub200(root: Path, train: int = 8, test: int = 2) -> Path:
    """`CUB_200_2011.tgz`: tables with numbers, the last lines of which are of the last class."""
    place = root / "CUB_200_2011"
    images, labels, split, boxes = [], [], [], []
    number = 0
    for label, name in enumerate(BIRDS, 1):
        for which in range(train + test):
            number += 1
            path = f"{name}/{name.partition('.')[2]}_{which:04d}_{number + 1000}.jpg"
            picture(place / "images" / path, number, grey=number == 3)
            images.append(f"{number} {path}")
            labels.append(f"{number} {label}")
            # training and test pictures take turns
            split.append(f"{number} {int(which % 2 == 0 or which >= 2 * test)}")
            boxes.append(f"{number} 1.0 2.0 5.0 4.0")
    tables = {
        "images.txt": images,
        "image_class_labels.txt": labels,
        "train_test_split.txt": split,
        "bounding_boxes.txt": boxes,
        "classes.txt": [f"{label} {name}" for label, name in enumerate(BIRDS, 1)],
        "README": ["The Caltech-UCSD Birds-200-2011 Dataset"],
    }
    for name, lines in tables.items():
        write(place / name, lines)
    write(place / "parts" / "parts.txt", ["1 back", "2 beak"])
    write(place / "attributes" / "class_attribute_labels_continuous.txt", ["0.1 0.2"])
    return place


def caltech101(root: Path, count: int = 8, folder: str = "caltech101") -> Path:
    """`101_ObjectCategories` and `Annotations`, as torchvision unpacks `caltech-101.zip`."""
    place = root / folder
    for label, name in enumerate((*THINGS, "BACKGROUND_Google")):
        for number in range(1, count + 1):
            picture(place / "101_ObjectCategories" / name / f"image_{number:04d}.jpg", 100 * label + number)
            write(place / "Annotations" / name / f"annotation_{number:04d}.mat", ["MATLAB 5.0 MAT-file"])
    write(place / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp", ["a stray"])
    return place


def caltech256(root: Path, count: int = 8, folder: str = "caltech256") -> Path:
    """`256_ObjectCategories.tar`, with the stray entries that it is known for."""
    place = root / folder
    for label, name in enumerate((*NUMBERED, "257.clutter")):
        for number in range(1, count + 1):
            file = place / "256_ObjectCategories" / name / f"{name[:3]}_{number:04d}.jpg"
            picture(file, 100 * label + number, grey=number == 2)
    (place / "256_ObjectCategories" / "056.dog" / "greg" / "vision309").mkdir(parents=True)
    write(place / "256_ObjectCategories" / "198.spider" / "RENAME2", ["#!/bin/sh"])
    return place


def indoor67(root: Path, train: int = 8, test: int = 2, unlisted: int = 3, folder: str = "indoorCVPR_09") -> Path:
    """`indoorCVPR_09.tar`, and the two lists beside its `Images`; most pictures are in none of them."""
    place = root / folder
    lists: dict[str, list[str]] = {"TrainImages.txt": [], "TestImages.txt": []}
    for label, name in enumerate(ROOMS):
        for number in range(train + test + unlisted):
            path = f"{name}/{name} {number:02d}_flickr.jpg"
            picture(place / "Images" / path, 100 * label + number)
            if number < train + test:
                lists["TestImages.txt" if number < test else "TrainImages.txt"].append(path)
    for table, paths in lists.items():
        # the real ones end without a line break
        (place / table).write_text("\n".join(reversed(paths)))
    return place


def tiny_imagenet(root: Path, train: int = 8, val: int = 2) -> Path:
    """`tiny-imagenet-200.zip`: WordNet ids, boxes beside the pictures, and a test part without labels."""
    place = root / "tiny-imagenet-200"
    write(place / "wnids.txt", list(WNIDS))
    words = {"n00001740": "entity", **WNIDS, "n15300051": "Lent, Lententide"}
    write(place / "words.txt", [f"{wnid}\t{text}" for wnid, text in sorted(words.items())])
    annotations = []
    for label, wnid in enumerate(WNIDS):
        for number in range(train):
            picture(place / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 100 * label + number)
        boxes = [f"{wnid}_{number}.JPEG\t0\t0\t5\t5" for number in range(train)]
        write(place / "train" / wnid / f"{wnid}_boxes.txt", boxes)
    for number in range(val * len(WNIDS)):
        # classes take turns, as in the real file they come in no order
        picture(place / "val" / "images" / f"val_{number}.JPEG", 1000 + number)
        annotations.append(f"val_{number}.JPEG\t{list(WNIDS)[number % len(WNIDS)]}\t0\t32\t44\t62")
        picture(place / "test" / "images" / f"test_{number}.JPEG", 2000 + number)
    write(place / "val" / "val_annotations.txt", annotations)
    return place


def imagenette(root: Path, train: int = 8, val: int = 2, folder: str = "imagenette2-160") -> Path:
    """`imagenette2-160.tgz`, with its table of noisy labels."""
    place = root / folder
    for label, wnid in enumerate(NETTE):
        for number in range(train + val):
            side = "train" if number < train else "val"
            picture(place / side / wnid / f"{wnid}_{number}.JPEG", 100 * label + number)
    write(place / "noisy_imagenette.csv", ["path,noisy_labels_0"])
    return place


TREES: dict[str, Callable[[Path], Path]] = {
    "cub200": cub200,
    "caltech101": caltech101,
    "caltech256": caltech256,
    "indoor67": indoor67,
    "tiny_imagenet": tiny_imagenet,
    "imagenette": imagenette,
}


def write(file: Path, lines: Sequence[str]) -> None:
    """A text file of lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
