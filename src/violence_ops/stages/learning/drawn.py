"""Drawn clips of a world, with the people that the pose weights find in them.

They are encoded, decoded and looked at like the clips of a night, so that what learns from them sees people as it will find
them. What was found is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from violence_ops.errors import WorkspaceError
from violence_ops.files import fingerprint, load_table, read_fingerprint, read_json, write_json, write_table
from violence_ops.params import Params
from violence_ops.records import LABELS, ClipPoses, ClipRecord, sampled_frames
from violence_ops.stages.nightly.extract_poses import Video, expected, open_source, pose_stream, source_sha256
from violence_ops.store.batches import Progress

if TYPE_CHECKING:
    from violence_ops.stages.nightly.extract_poses import Source

CLIPS_PER_SCENE = 4
_Seen = tuple[ClipRecord, ClipPoses]
_AT_ONCE = 48  # clips whose videos lie in the temporary folder together


@dataclass(frozen=True, slots=True)
class World:
    """The scenes and people of `world`, and what `seed` lets them do; poses that were found in it lie in `folder`."""

    world: int
    seed: int
    folder: Path

    def look(self, params: Params, count: int, progress: Progress | None = None) -> Iterator[_Seen]:
        """The first `count` clips in their order, both labels in turn, CLIPS_PER_SCENE of a source group.

        Only what this code, these pose weights and these parameters have not found before is drawn and looked at.
        """
        weights, source = source_sha256(params.pose), None
        for start in range(0, count, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, count))
            marks = {number: self._mark(number, weights, params) for number in numbers}
            found = {number: self._kept(number, mark) for number, mark in marks.items()}
            due = {number: mark for number, mark in marks.items() if found[number] is None}
            if due:
                source = source or open_source(params.pose)
                found |= self._extract(due, source, params)
            for number, one in found.items():
                assert one is not None
                yield one
                if progress:
                    progress("extract", number + 1, count)

    def _extract(self, marks: dict[int, str], source: Source, params: Params) -> dict[int, _Seen]:
        """Draw the clips of these numbers, look at them, and keep what was found under its mark."""
        seen: dict[int, _Seen] = {}
        with TemporaryDirectory() as videos, pose_stream(source, params) as stream:
            drawn = [self._draw(number, Path(videos)) for number in marks]
            wanted = [Video(path, sampled_frames(record, params.pose.max_frames_per_second)) for record, path in drawn]
            for (number, mark), (record, _), found in zip(marks.items(), drawn, stream.over(wanted), strict=True):
                poses = ClipPoses.from_frames(record, found.video.indices, list(found))
                write_json(self._file(number).with_suffix(".json"), record.to_dict())
                write_table(self._file(number), poses.to_table(), mark)
                seen[number] = record, poses
        return seen

    def _draw(self, number: int, folder: Path) -> tuple[ClipRecord, Path]:
        """The clip of that number and its video, encoded into `folder`."""
        from violence_ops import synthetic

        motion = 2**31 + self.seed * 1_000_003 + number  # the clips of `synth` are drawn with seeds below 2^31
        label = LABELS[1 - number % 2]
        clip = synthetic.clip(motion, label, group=number // CLIPS_PER_SCENE, world=self.world)
        path = folder / f"{number}.{clip.scene.container}"
        synthetic.write_clip(clip, path)
        record = self._unseen(number).with_(
            label=label, source_group=clip.source_group, width=clip.width, height=clip.height, fps=clip.fps,
            frame_count=clip.frame_count,
        )  # fmt: skip
        return record, path

    def _kept(self, number: int, mark: str) -> _Seen | None:
        """A clip as it was found before; None if it was not, or its files are damaged."""
        path = self._file(number)
        if read_fingerprint(path) != mark:
            return None
        try:
            record = read_json(path.with_suffix(".json")).to(ClipRecord.from_dict)
            return record, ClipPoses.from_table(load_table(path), record)
        except WorkspaceError:
            return None

    def _mark(self, number: int, weights_sha256: str, params: Params) -> str:
        from violence_ops import synthetic

        return fingerprint(synthetic.code_sha256(), expected(self._unseen(number), weights_sha256, params.pose))

    def _unseen(self, number: int) -> ClipRecord:
        """A clip of which the number alone is known, which says all: the same number gives the same bytes."""
        name = f"{self.world}-{self.seed}-{number:06d}"
        return ClipRecord(clip_id=name, sha256=name, batch_id="", source_path="", source_group="")

    def _file(self, number: int) -> Path:
        return self.folder / f"{self._unseen(number).clip_id}.parquet"
