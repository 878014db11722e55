"""OpenOOD v1.5 and pytorch-ood: a zip laid out as OpenOOD's own folder, with imglist, YAML and the few lines to run it.

An imglist has one ``<path> -1`` a line, relative to ``data/images_largescale``, no blank line and no space in a
path; both of OpenOOD's routes (main.py with a YAML, ``Evaluator``) are described in the README.
"""

from __future__ import annotations

from pathlib import Path

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.contents import BuildContents
from exports.members import IMAGES_FOLDER, MetadataRow
from exports.options import ExportOptions
from exports.protocols import ExportResult
from exports.zipped import export_zip

SET_NAME = "imagenet_bg"
ID_SET_NAME = "imagenet_bg_id"
IMAGES_ROOT = "data/images_largescale"
LISTS_ROOT = "data/benchmark_imglist/imagenet"
OOD_LABEL = -1

_README = """# {label} for OpenOOD and pytorch-ood

Extract this archive inside a checkout of OpenOOD v1.5: `data/images_largescale/{name}/` holds the images,
`data/benchmark_imglist/imagenet/` the lists ({name}: {count} images; {name}_s: the {small} with a drop above 5),
`configs/datasets/imagenet/{name}_ood.yml` the dataset. CARD.md is the data card.

## OpenOOD, by configuration

Give `configs/datasets/imagenet/{name}_ood.yml` where the examples give `configs/datasets/imagenet/imagenet_ood.yml`.

## OpenOOD, by Evaluator

```python
from openood.evaluation_api import Evaluator
from openood.evaluation_api.datasets import DATA_INFO

far = DATA_INFO["imagenet"]["ood"]["far"]
far["datasets"].append("{name}")
far["{name}"] = {{
    "data_dir": "images_largescale/",
    "imglist_path": "benchmark_imglist/imagenet/test_{name}.txt",
}}
```

OpenOOD counts OOD as positive, so its FPR@95 is `fpr95_ood_pos`, not the `fpr95_id_pos` of the MCM and LoCoOp papers.

## pytorch-ood

```python
from torchvision.datasets import ImageFolder
from pytorch_ood.utils import ToUnknown

data = ImageFolder("data/images_largescale/{name}", transform=transform, target_transform=ToUnknown())
```

Without `ToUnknown` the folder numbers count as in-distribution classes.
"""

_YAML = """dataset:
  name: imagenet
  num_classes: 1000
  image_size: 224
  interpolation: bilinear
  normalization_type: imagenet
  num_workers: '@{{num_workers}}'
  num_gpus: '@{{num_gpus}}'
  num_machines: '@{{num_machines}}'
  split_names: [train, val, test]

ood_dataset:
  name: imagenet_ood
  num_classes: 1000
  dataset_class: ImglistDataset
  interpolation: bilinear
  batch_size: 32
  shuffle: False
  split_names: [nearood, farood]
  nearood:
    datasets: [{name}]
    {name}:
      data_dir: ./data/images_largescale/
      imglist_pth: ./data/benchmark_imglist/imagenet/test_{name}.txt
  farood:
    datasets: [{name}_s]
    {name}_s:
      data_dir: ./data/images_largescale/
      imglist_pth: ./data/benchmark_imglist/imagenet/test_{name}_s.txt
"""


_ID_README = """# The ID side of {label} for OpenOOD

Extract this archive inside a checkout of OpenOOD v1.5, beside the build's own archive of the same coding:
`data/images_largescale/{name}/` holds {count} labelled photos, `data/benchmark_imglist/imagenet/test_{name}.txt` the
list with their class indices ({name}_s: the {small} whose background has a drop above 5). CARD.md says what they are.

## By Evaluator

```python
from openood.evaluation_api.datasets import DATA_INFO

DATA_INFO["imagenet"]["id"]["test"] = {{
    "data_dir": "images_largescale/",
    "imglist_path": "benchmark_imglist/imagenet/test_{name}.txt",
}}
```

## By configuration

Give the same two under `dataset.test`, as `data_dir` and `imglist_pth`, in `configs/datasets/imagenet/imagenet.yml`.
"""


class OpenOodExporter:
    """See the module's text."""

    label = "OpenOOD imglist and pytorch-ood (zip)"
    about = "Laid out as OpenOOD v1.5 expects it, with its lists and a configuration."

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        layout = OpenOodIdSide() if options.id_side else self
        return export_zip("openood", "-openood", layout, workspace, build, out_dir, options, progress)

    def texts(self, contents: BuildContents) -> dict[str, bytes]:
        small = contents.small_set()
        words = {"label": contents.label, "name": SET_NAME, "count": contents.total, "small": len(small)}
        return {
            "CARD.md": contents.card,
            "README.md": _README.format(**words).encode(),
            "build.json": contents.description,
            f"configs/datasets/imagenet/{SET_NAME}_ood.yml": _YAML.format(name=SET_NAME).encode(),
            f"{LISTS_ROOT}/test_{SET_NAME}.txt": _list(contents.rows, SET_NAME, OOD_LABEL),
            f"{LISTS_ROOT}/test_{SET_NAME}_s.txt": _list(small, SET_NAME, OOD_LABEL),
            "metadata.csv": contents.metadata(self.place),
        }

    def place(self, file_name: str) -> str:
        return f"{IMAGES_ROOT}/{_in_root(file_name, SET_NAME)}"


class OpenOodIdSide:
    """The layout of a build's ID side: lines of the list end in the class index, as OpenOOD's own ID lists do."""

    def texts(self, contents: BuildContents) -> dict[str, bytes]:
        small = contents.small_set()
        words = {"label": contents.label, "name": ID_SET_NAME, "count": contents.total, "small": len(small)}
        return {
            "CARD.md": contents.card,
            "README.md": _ID_README.format(**words).encode(),
            "build.json": contents.description,
            f"{LISTS_ROOT}/test_{ID_SET_NAME}.txt": _list(contents.rows, ID_SET_NAME),
            f"{LISTS_ROOT}/test_{ID_SET_NAME}_s.txt": _list(small, ID_SET_NAME),
            "metadata.csv": contents.metadata(self.place),
        }

    def place(self, file_name: str) -> str:
        return f"{IMAGES_ROOT}/{_in_root(file_name, ID_SET_NAME)}"


def _in_root(file_name: str, name: str) -> str:
    return f"{name}/{file_name.removeprefix(f'{IMAGES_FOLDER}/')}"


def _list(rows: list[MetadataRow], name: str, label: int | None = None) -> bytes:
    """An imglist; without a ``label`` for all, each line has its image's class index."""
    lines = (f"{_in_root(row.file_name, name)} {row.class_index if label is None else label}\n" for row in rows)
    return "".join(lines).encode()
