"""`synth`: labelled synthetic clips as an inbox drop, with their ground truth beside it, and the broken files of a bad night."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_ops.errors import UsageError

if TYPE_CHECKING:
    from violence_ops.synthetic import SyntheticClip

_FIRST_NIGHT = datetime(2026, 1, 1, 22, 0)


def run(
    out: Path,
    clips: int,
    seed: int,
    groups: int,
    unlabelled: int = 0,
    with_truth: bool = True,
    duration_s: float = 2.0,
    first_group: int = 0,
) -> dict[str, Any]:
    """Write `clips` labelled and `unlabelled` further clips of `groups` source groups into `out`, with labels.csv.

    Both labels are balanced, over all and within a group, so that a group needs two clips: of fewer clips there are fewer
    groups, and a notice says so. `out` may be an empty inbox: hidden files in it do not count. Ground truth goes to
    `<out>-truth/<name>.truth.npz`, so that the drop holds only what an inbox may hold. Another `seed` gives other
    clips; the numbers of the groups, counted from `first_group`, choose the cameras and people.

    Raises:
        UsageError: a number is negative, there are no groups, or `out` holds files, which labels.csv would not name.
    """
    import numpy as np

    from violence_ops import synthetic

    if min(clips, unlabelled, seed) < 0 or groups < 1:
        raise UsageError(
            f"synth needs clips, unlabelled and seed >= 0 and groups >= 1, not {clips}, {unlabelled}, {seed} and {groups}."
        )
    out.mkdir(parents=True, exist_ok=True)
    if any(not path.name.startswith(".") for path in out.iterdir()):
        raise UsageError(f"{out} is not empty: name a folder that is new or empty.")
    truth = out.with_name(out.name + "-truth")
    rng = np.random.default_rng([seed, 3])
    rows: list[dict[str, str]] = []
    for number in range(clips + unlabelled):
        group = first_group + number // 2 % groups
        label = ("Fight", "NonFight")[number % 2]
        clip = synthetic.clip(int(rng.integers(2**31)), label, group=group, duration_s=duration_s)
        name = f"syn_{seed:04d}_{number:04d}"
        path = out / f"{name}.{clip.scene.container}"
        synthetic.write_clip(clip, path)
        if with_truth:
            truth.mkdir(parents=True, exist_ok=True)
            _write_truth(clip, truth / f"{name}.truth.npz")
        recorded = _FIRST_NIGHT + timedelta(seconds=int(rng.integers(28800)))
        rows.append(_row(path.name, label if number < clips else "", clip, recorded))
    _write_labels(out / "labels.csv", rows)
    made = len({row["source_group"] for row in rows})
    fewer = (
        f"Only {made} of {groups} groups {'was' if made == 1 else 'were'} made: each group needs a clip of both labels."
    )
    return {
        "out": str(out),
        "clips": clips,
        "unlabelled": unlabelled,
        "groups": made,
        "notices": [fewer] if made < groups else [],
        "truth": str(truth) if with_truth else None,
    }


def broken_files(out: Path, seed: int) -> dict[str, str]:
    """Write what a bad night brings into `out`: file name to the reason (SPEC 1) it must be refused for."""
    from violence_ops import synthetic
    from violence_ops.synthetic.encode import write_frames, write_sound

    out.mkdir(parents=True, exist_ok=True)
    clip = synthetic.clip(seed, "NonFight", duration_s=2.0)
    tag = f"{seed:04d}"
    (out / f"empty_{tag}.mp4").write_bytes(b"")
    (out / f"text_{tag}.mp4").write_text(f"This is no video, though its name says so ({seed}).\n")
    whole = out / f"truncated_{tag}.mp4"
    _write_streamable(clip, whole)
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.55)])
    write_sound(out / f"sound_{tag}.mp4", 1.0 + seed % 7 / 10)
    write_frames([clip.frame(0)], out / f"one_frame_{tag}.mp4", clip.fps, "mpeg4", 400_000)
    (out / f"link_{tag}.mp4").symlink_to("/etc/passwd")
    hostile = f"..night\n..{tag}.mp4"
    write_frames(clip.frames(), out / hostile, clip.fps, "mpeg4", 400_000)
    return {
        f"empty_{tag}.mp4": "unreadable",
        f"text_{tag}.mp4": "unreadable",
        f"truncated_{tag}.mp4": "truncated",
        f"sound_{tag}.mp4": "no_video_stream",
        f"one_frame_{tag}.mp4": "too_short",
        f"link_{tag}.mp4": "not_a_regular_file",
        hostile: "unsafe_name",
    }


def _write_streamable(clip: SyntheticClip, path: Path) -> None:
    """An MP4 with its index in front, as cameras' exports have it: cut short, its header still promises all frames."""
    from violence_ops.synthetic.encode import write_frames

    write_frames(clip.frames(), path, clip.fps, "h264", 800_000, index_first=True)


def _row(name: str, label: str, clip: SyntheticClip, recorded: datetime) -> dict[str, str]:
    return {
        "path": name,
        "label": label,
        "source_group": clip.source_group,
        "camera_id": clip.camera_id,
        "recorded_at": recorded.isoformat(),
    }


def _write_labels(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "source_group", "camera_id", "recorded_at"])
        writer.writeheader()
        writer.writerows(rows)


def _write_truth(clip: SyntheticClip, path: Path) -> None:
    import numpy as np

    np.savez_compressed(
        path,
        label=np.array(clip.label),
        source_group=np.array(clip.source_group),
        fps=np.array(clip.fps),
        size=np.array([clip.width, clip.height]),
        keypoints=clip.keypoints,
        visibility=clip.visibility,
        bboxes=clip.bboxes,
        track_ids=clip.track_ids,
        fighters=np.array(clip.fighters, dtype=np.int32),
        actions=np.array(clip.actions),
    )
