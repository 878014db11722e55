"""What every archive of a build holds, whatever its layout: the card, build.json, metadata.csv and the images."""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TextIO

from db.models import Build, Recipe
from db.progress import Progress
from db.workspace import Workspace
from exports.builds import build_label
from exports.datacard import data_card
from exports.members import Member, MetadataRow, list_members, read_png, write_metadata
from exports.options import ARCHIVE_FORMAT, ExportOptions
from exports.protocols import ExportError
from exports.rules import PRESETS, Rule

READERS = 2
READ_AHEAD = 32


class BuildContents:
    """A frozen build's members and texts under some options. Nothing of it depends on when or where it is asked."""

    def __init__(self, workspace: Workspace, build: Build, options: ExportOptions, progress: Progress) -> None:
        self.build = build
        self.options = options
        self._progress = progress
        with workspace.read() as session:
            self.recipe = session.get_one(Recipe, build.recipe_id)
        progress.update(0, build.item_count, "listing the members")
        self.members = list_members(workspace, build, options.coding, options.part)
        """Every member in order of file name."""
        if not self.members:
            raise ExportError(f"{build_label(build)} has no member in its {options.part} part.")

    @property
    def label(self) -> str:
        """``bg-v1``, with the part or the coding where they are not the usual ones."""
        return f"{build_label(self.build)}{self.options.suffix}"

    @property
    def total(self) -> int:
        return len(self.members)

    @property
    def rows(self) -> list[MetadataRow]:
        return [member.row for member in self.members]

    def images(self, members: Sequence[Member], done: int = 0) -> Iterator[tuple[Member, bytes]]:
        """Members with their stored bytes, read and checked a few ahead by threads; ``done`` images came before.

        Raises :class:`ExportError` when a file is not the one that was frozen, and Cancelled through the progress.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
            waiting: deque[Future[bytes]] = deque()
            try:
                for position, member in enumerate(members):
                    for ahead in members[position + len(waiting) : position + READ_AHEAD]:
                        waiting.append(pool.submit(self.image, ahead))
                    self.tell(done + position, member.row.source_name)
                    yield member, waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def image(self, member: Member) -> bytes:
        """The member's stored bytes; :class:`ExportError` when its file is not the one that was frozen."""
        return self.options.coding.encode(read_png(member))

    def image_sums(self) -> Iterator[tuple[Member, str]]:
        """Members with the sha256 of their stored bytes; files that are stored as they are need not be read."""
        if self.options.images == "png":
            for member in self.members:
                yield member, member.row.result_sha256
        else:
            for member, content in self.images(self.members):
                yield member, hashlib.sha256(content).hexdigest()

    @property
    def description_of_rule(self) -> str:
        return Rule.from_json(self.build.rule).describe()

    @cached_property
    def card(self) -> bytes:
        options = self.options
        images = options.coding.describe()
        return data_card(self.build, self.recipe, images=images, part=options.part, audit=options.audit).encode()

    @cached_property
    def description(self) -> bytes:
        """build.json: :meth:`facts`."""
        return json_bytes(self.facts())

    def facts(self) -> dict:
        """The rule, the recipe and the counts of the freeze, as JSON. Names no person."""
        build = self.build
        return {
            "format": ARCHIVE_FORMAT,
            "name": build.name,
            "number": build.number,
            "label": build_label(build),
            "part": self.options.part or "all",
            "images": self.options.coding.describe(),
            "rule": build.rule,
            "rule_in_words": self.description_of_rule,
            "content_hash": build.content_hash,
            "item_count": build.item_count,
            "archived_count": self.total,
            "last_decision_id": build.last_decision_id,
            "created_at": build.created_at.isoformat(),
            "recipe_hash": self.recipe.hash,
            "recipe": self.recipe.config,
            "summary": build.summary,
            "audit": self.options.audit,
        }

    def metadata(self, rename: Callable[[str], str] = lambda name: name) -> bytes:
        """metadata.csv, its file names as ``rename`` gives them."""
        return csv_bytes(lambda text: write_metadata((row.renamed(rename(row.file_name)) for row in self.rows), text))

    def small_set(self) -> list[MetadataRow]:
        """The members that Bg(S) takes by its published threshold on the drop."""
        threshold = PRESETS["bg_s"].drop_above
        return [row for row in self.rows if row.drop > threshold]

    def tell(self, done: int, message: str) -> None:
        """Report how many images are written; raises :class:`db.progress.Cancelled`."""
        self._progress.update(done, self.total, message)

    def done(self, message: str = "") -> None:
        self._progress.update(self.total, self.total, message)


def csv_bytes(write: Callable[[TextIO], None]) -> bytes:
    """What ``write`` writes, as UTF-8, encoded on the way: a StringIO would hold four bytes a character."""
    content = io.BytesIO()
    text = io.TextIOWrapper(content, "utf-8", newline="")
    write(text)
    text.flush()
    return content.getvalue()


def json_bytes(value: object) -> bytes:
    """JSON with sorted keys and a line end: equal values give equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
