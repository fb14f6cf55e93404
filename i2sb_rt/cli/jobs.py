"""From what the command line names to pairs of an input and an output file, before any work begins."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from i2sb_rt.errors import UsageError
from i2sb_rt.image import FORMATS, format_of


@dataclass(frozen=True)
class Job:
    """One image. source: None is standard input; target: None is standard output.

    relative: the source's path below the input that named it; None for standard input.
    """

    source: Path | None
    target: Path | None
    relative: Path | None = None

    @property
    def source_name(self) -> str:
        """The input, for messages."""
        return "-" if self.source is None else str(self.source)

    @property
    def target_name(self) -> str:
        """The output, for messages."""
        return "-" if self.target is None else str(self.target)

    @property
    def has_output(self) -> bool:
        """Whether the output is there already."""
        return self.target is not None and is_there(self.target)


def plan_jobs(inputs: list[str], output: str, overwrite: bool = False) -> list[Job]:
    """Pair every input with an output.

    inputs: files, folders (walked, their images taken), glob patterns, or "-". output: a file, a folder, or "-".
    In a folder NAME.ext becomes NAME.png, or NAME.ext.png where two would meet; the tree below an input folder is kept.
    Raises UsageError where outputs would meet, an output would replace an input (unless `overwrite`), several inputs
    are given for one file, or there is nothing to do.
    """
    if not inputs:
        raise UsageError("no input is given: name files, folders, or - for standard input")
    if any("\0" in text for text in (*inputs, output)):
        raise UsageError("a zero byte stands in a file's name")
    if "-" in inputs:
        jobs = [_stdin_job(inputs, output)]
    elif output == "-":
        jobs = [Job(*_only(inputs, "standard output", None))]
    elif _is_folder(inputs, output):
        jobs = _folder_jobs(inputs, Path(output))
    else:
        format_of(Path(output))
        jobs = [Job(*_only(inputs, output, Path(output)))]
    _refuse_clashes(jobs, overwrite)
    return jobs


def is_folder(path: Path) -> bool:
    """Whether it is a folder; a path that cannot be one, as it is too long or not to be looked at, is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; one whose name is too long, or may not be looked for, is not there."""
    try:
        return path.exists()
    except OSError:
        return False


def inside(path: Path, place: Path) -> bool:
    """Whether a path is this file, this folder, or in it."""
    return Path(_identity(path)).is_relative_to(_identity(place))


def without(jobs: list[Job], path: Path) -> list[Job]:
    """Return the jobs whose input is neither this file nor in this folder. Raises UsageError where none is left."""
    kept = [job for job in jobs if job.source is None or not inside(job.source, path)]
    if not kept:
        raise UsageError(f"there are no images besides what is in {path}")
    return kept


def protect(side_files: dict[str, Path], jobs: list[Job]) -> None:
    """Refuse side files, by the option that names each, which are an input, an output or another side file.

    Raises UsageError.
    """
    taken = {_identity(side) for job in jobs for side in (job.source, job.target) if side is not None}
    seen: dict[str, str] = {}
    for option, path in side_files.items():
        identity = _identity(path)
        if identity in taken:
            raise UsageError(f"{option} {path} would replace an input or an output")
        if identity in seen:
            raise UsageError(f"{option} {path} would replace what {seen[identity]} writes")
        seen[identity] = option


def _stdin_job(inputs: list[str], output: str) -> Job:
    if len(inputs) > 1:
        raise UsageError("- (standard input) is the only input where it is given")
    if output == "-":
        return Job(None, None)
    if is_folder(Path(output)) or output.endswith(os.sep):
        raise UsageError(f"{output} is a folder, and standard input gives no name to a file in it; name the file")
    format_of(Path(output))
    return Job(None, Path(output))


def _only(inputs: list[str], output: str, target: Path | None) -> tuple[Path, Path | None, Path]:
    found = _found(inputs, None)
    if len(found) > 1:
        raise UsageError(f"{len(found)} images cannot all be written to {output}; name a folder")
    source, relative = found[0]
    return source, target, relative


def _found(inputs: list[str], skip: Path | None) -> list[tuple[Path, Path]]:
    found = list(_files(inputs, skip))
    if not found:
        raise UsageError(f"there are no images in {', '.join(inputs)}; endings looked for: {', '.join(FORMATS)}")
    return found


def _is_folder(inputs: list[str], output: str) -> bool:
    """Whether the output is meant as a folder: it is one, ends in a slash, or has no ending and so names no format."""
    if is_folder(Path(output)) or output.endswith(os.sep):
        return True
    suffix = Path(output).suffix.lower()
    return suffix not in FORMATS and (not suffix or len(inputs) > 1 or is_folder(Path(inputs[0])))


def _files(inputs: list[str], skip: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield each input file once, with its path below the input that named it; `skip` is a folder not to walk."""
    seen: set[str] = set()
    for text in inputs:
        for source, relative in _matches(text, skip):
            identity = _identity(source)
            if identity not in seen:
                seen.add(identity)
                yield source, relative


def _matches(text: str, skip: Path | None) -> Iterator[tuple[Path, Path]]:
    path = Path(text)
    if is_folder(path):
        yield from _walk(path, skip)
    elif set(text) & set("*?[") and not os.path.lexists(path):
        yield from ((match, Path(match.name)) for match in sorted(_glob(path)) if not is_folder(match))
    else:  # also a file that is missing: that it is shall be told like any other failure
        yield path, Path(path.name)


def _glob(pattern: Path) -> Iterator[Path]:
    """Yield what a pattern matches. `**` is walked here: the glob module follows links, which may lead in circles."""
    if "**" not in pattern.parts:
        yield from map(Path, glob.iglob(str(pattern)))  # noqa: PTH207 (Path.glob takes no absolute patterns)
        return
    place = pattern.parts.index("**")
    head, tail = Path(*pattern.parts[:place]), Path(*(pattern.parts[place + 1 :] or ["*"]))
    for top in _glob(head):
        for parent, folders, _ in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _glob(Path(glob.escape(parent)) / tail)


def _walk(folder: Path, skip: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield the images below a folder in sorted order, and then the folders that cannot be listed, to be told of."""
    skipped = None if skip is None or _identity(skip) == _identity(folder) else _identity(skip)
    closed: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if _identity(Path(parent, name)) != skipped)
        for name in sorted(names):
            if Path(name).suffix.lower() in FORMATS:
                yield Path(parent, name), Path(parent, name).relative_to(folder)
    for path in closed:
        yield path, path.relative_to(folder) if path != folder else Path(path.name or "folder")


def _folder_jobs(inputs: list[str], output: Path) -> list[Job]:
    found = _found(inputs, output)
    short = Counter(relative.with_suffix(".png") for _, relative in found)
    jobs = []
    for source, relative in found:
        target = relative.with_suffix(".png")
        if short[target] > 1:
            target = relative.with_name(relative.name + ".png")
        jobs.append(Job(source, output / target, relative))
    return jobs


def _refuse_clashes(jobs: list[Job], overwrite: bool) -> None:
    inputs = {_identity(job.source) for job in jobs if job.source is not None}
    sources: dict[str, Job] = {}
    for job in jobs:
        if job.target is None:
            continue
        identity = _identity(job.target)
        if identity in sources:
            first = sources[identity].source_name
            raise UsageError(f"{first} and {job.source_name} would both be written to {job.target}; restore them apart")
        if identity in inputs and not overwrite:
            raise UsageError(f"{job.target} is an input and would be replaced; --overwrite allows it")
        sources[identity] = job


def _identity(path: Path) -> str:
    return os.path.realpath(path)
