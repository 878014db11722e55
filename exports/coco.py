"""The object masks as COCO annotations, apart from the images: which pixels the labelled object covered.

One annotation an image: ``segmentation`` is the object's mask, ``inpainted`` the dilated one that was painted anew,
both RLE as pycocotools reads it. ``category_id`` is the class index plus 1, for COCO counts from 1. The image entries
name the files of the build's other archives.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.archive import finished, resumable_zip, standing_sha256, sums_line
from exports.contents import BuildContents, json_bytes
from exports.members import Member
from exports.options import ExportOptions
from exports.protocols import ExportError, ExportResult

ANNOTATIONS = "annotations/instances_bg.json"
_README = """# Object masks of `{label}`

`{annotations}` holds, for each image of the build, the mask of the object that was removed (`segmentation`) and
of what was inpainted (`inpainted`), as COCO run-length codes. Sizes are those of the images. Read it with pycocotools:

```python
from pycocotools.coco import COCO

coco = COCO("{annotations}")
mask = coco.annToMask(coco.loadAnns([1])[0])
```

"""


class CocoExporter:
    """See the module's text."""

    label = "COCO masks (zip, without the images)"
    about = "The masks alone: the object and the inpainted pixels of each image as RLE, for pycocotools."

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        contents = BuildContents(workspace, build, options, progress)
        path = out_dir / f"imagenet-{contents.label}-coco-masks.zip"
        before = standing_sha256(path)
        readme = _README.format(label=contents.label, annotations=ANNOTATIONS).encode() + contents.card
        files = {
            "README.md": readme,
            ANNOTATIONS: json_bytes(_annotations(contents)),
            "build.json": contents.description,
        }
        sums = [sums_line(hashlib.sha256(content).hexdigest(), name) for name, content in sorted(files.items())]
        files["SHA256SUMS"] = b"".join(sums)
        with resumable_zip(path, options.key(build, "coco")) as archive:
            for name in sorted(files):
                if not archive.has(name):
                    archive.write(name, files[name])
            contents.done("computing the archive's sha256")
        return finished(path, contents.total, before)


def _annotations(contents: BuildContents) -> dict:
    images, annotations, categories = [], [], {}
    for number, member in enumerate(contents.members, 1):
        contents.tell(number - 1, member.row.source_name)
        row = member.row
        mask, dilated = _read_mask(member.mask_png, member), _read_mask(member.dilated_png, member)
        height, width = mask.shape
        category = row.class_index + 1
        categories[category] = {"id": category, "name": row.class_name, "supercategory": "", "wnid": row.wnid}
        images.append({"id": number, "file_name": row.file_name, "width": width, "height": height})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": category,
                "iscrowd": 0,
                "area": int(mask.sum()),
                "bbox": _bounding_box(mask),
                "segmentation": _rle(mask),
                "inpainted": _rle(dilated),
            }
        )
    info = {"description": f"Object masks of {contents.label}", "date_created": contents.build.created_at.isoformat()}
    return {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [categories[key] for key in sorted(categories)],
    }


def _read_mask(path: Path, member: Member) -> np.ndarray:
    """``HxW uint8``, 1 = masked."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return (np.asarray(image.convert("L")) > 127).astype(np.uint8)
    except OSError as error:
        raise ExportError(
            f"The mask of candidate {member.candidate_id} (source {member.row.source_name}), {path}, cannot be read "
            f"({error}). Put it back from a copy of the workspace, generate the source again, or import its archive "
            "again with --masks; then export again."
        ) from error


def _rle(mask: np.ndarray) -> dict:
    from pycocotools.mask import encode

    coded = encode(np.asfortranarray(mask))
    return {"size": [int(side) for side in coded["size"]], "counts": coded["counts"].decode()}


def _bounding_box(mask: np.ndarray) -> list[int]:
    """``x, y, width, height`` in pixels; zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]
