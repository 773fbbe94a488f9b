"""Carry a switch out, take it back, or finish it after a crash.

Each step can be repeated: a step that finds its work done does nothing. Between any two steps, Triton, also one that is
started right then, serves the whole version before or the whole new one.

For a pipeline whose members' configs differ between versions (the route SIDE), members cannot serve both: versions
share a config. So the new members come up as side models; the ensemble's config, with its steps sent to those, is the
one switch; then the real members follow, the ensemble goes back to them, and the side models go.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from conch import ledger
from conch.errors import ConchError, ServerError
from conch.ledger import Ledger, Served
from conch.model_config import CONFIG_FILE, parse
from conch.switching import files, journal, side_models
from conch.switching.checkpoint import reached
from conch.switching.journal import CANARY, COMMITTED, KEPT, PLAIN, SIDE, Beside, Journal, Part
from conch.switching.plan import remembered_config
from conch.switching.taker import NoServer, Taker

# A request takes hold of all models of its ensemble when it begins: this much later, every one that began before has.
BEGIN_S = 0.3


class Unfinished(ServerError):
    """The new version serves, or the old one does, and something that was to follow did not."""


class Switch:
    """One journal and the repository, folders, and server that it is about."""

    def __init__(self, plan: Journal, root: Path, staging: Path, taker: Taker) -> None:
        self.plan = plan
        self.root = root
        self.staging = staging
        self.taker = taker
        self._stage = ""  # of the names that `reached` is given

    def run(self, staged: Path | None, verify: Callable[[], None]) -> None:
        """Make it live, or leave everything as it was. ``staged`` holds what is added; ``verify`` raises to undo.

        Raises: ConchError, OSError, what verify raises; Unfinished when the new version serves and the rest failed.
        """
        try:
            journal.reserve_room(self.staging)
            journal.write(self.plan, self.staging)
            reached("journal")
            self._prepare(staged)
            verify()
            reached("verified")
            journal.write(dataclasses.replace(self.plan, phase=COMMITTED), self.staging)
        except BaseException as error:
            if not self._is_committed():  # else an interruption in that very moment: the next command finishes
                self._undo_after(error)
            raise
        reached("committed")
        try:
            self.finish()
        except (ConchError, OSError) as error:
            raise Unfinished(
                f"version {self.plan.version} of {self.plan.name} serves, but tidying up after the switch failed",
                got=error,
                fix="run any command that changes this repository again: it finishes first",
            ) from error

    def _is_committed(self) -> bool:
        with contextlib.suppress(ConchError):
            written = journal.read(self.staging)
            return written is not None and written.phase == COMMITTED
        return False

    def recover(self) -> None:
        """Finish, or take back, what another process began. Raises: ConchError, OSError."""
        if self.plan.phase == COMMITTED:
            self.finish()
        else:
            self.undo()

    # ---- forward, until the new version serves

    def _prepare(self, staged: Path | None) -> None:
        if self.plan.route == CANARY:
            self._bring_up_canary(_needed(staged))
        elif self.plan.route == PLAIN:
            if self.plan.members:
                for part in self.plan.members:
                    self._place(part, staged)
                self._take(*(p.name for p in self.plan.members))
            self._place(self.plan.public, staged)
            self._take(self.plan.public.name)
        else:
            if self.plan.route == SIDE:
                self._bring_up_members(staged)
            self._write_beside(self.plan.public)
            self._write(self.plan.public, self.plan.switched)
            reached("switch")
            self._take(self.plan.public.name)

    def _place(self, part: Part, staged: Path | None) -> None:
        """Let a model's new version be what its files say."""
        if part.added and part.before is None:
            self._move_model_in(part, _needed(staged))
            return
        if part.added:
            if part.before != part.after:
                self._pin(part)
            self._move_version_in(part, _needed(staged))
        self._remember(part)
        self._write_beside(part)
        self._write(part, part.after)
        reached(f"config {part.name}")

    def _bring_up_members(self, staged: Path | None) -> None:
        """Everything is in place and runs, and nothing is asked yet."""
        added = [part for part in self.plan.parts if part.added]
        for part in added:
            if part.before is not None:
                self._pin(part)
        for part in added:
            if part.before is None:
                self._move_model_in(part, _needed(staged))
            else:
                self._move_version_in(part, _needed(staged))
        for part in self.plan.members:
            if part.side:
                self._show_side(part)
        new = [p.name for p in self.plan.members if p.before is None]
        self._take(*self.plan.sides, *new)

    def _bring_up_canary(self, staged: Path) -> None:
        scratch = staged.parent / "side"
        for part in self.plan.parts:
            folder = side_models.build(staged / part.name, part.side, parse(part.side_config), scratch)
            (staged / part.name / "1").rename(folder / str(self.plan.version))
            side_models.move_side_in(folder, self.root)
            reached(f"side {part.side}")
        for part in self.plan.parts:
            self._take(part.side)

    def _pin(self, part: Part) -> None:
        self._write(part, part.pinned)
        reached(f"pin {part.name}")

    def _move_model_in(self, part: Part, staged: Path) -> None:
        folder = staged / part.name
        self._number(folder)
        (folder / CONFIG_FILE).write_text(part.after, encoding="utf-8")
        files.flush_tree(folder)
        files.move_in(folder, self.root / part.name)
        reached(f"model {part.name}")

    def _move_version_in(self, part: Part, staged: Path) -> None:
        folder = self._number(staged / part.name)
        files.flush_tree(folder)
        files.move_in(folder, self.root / part.name / folder.name)
        reached(f"version {part.name}")

    def _number(self, folder: Path) -> Path:
        numbered = folder / str(self.plan.version)
        if not numbered.exists():
            (folder / "1").rename(numbered)
        return numbered

    def _show_side(self, part: Part) -> None:
        scratch = self.staging / f"{files.GONE}side"
        shutil.rmtree(scratch, ignore_errors=True)
        folder = side_models.build(self.root / part.name, part.side, parse(part.side_config), scratch)
        for beside in part.beside:
            (folder / beside.name).write_bytes(base64.b64decode(beside.after))
        side_models.link_version(folder, part.name, self.plan.version)
        side_models.move_side_in(folder, self.root)
        shutil.rmtree(scratch, ignore_errors=True)
        reached(f"side {part.side}")

    # ---- forward, after the new version serves; needs nothing of the stage

    def finish(self) -> None:
        """Bring the repository into its normal shape, and forget the journal. Raises: ConchError, OSError."""
        self._stage = "finish "
        journal.give_room(self.staging)
        public = self.plan.public
        if self.plan.route in (SIDE, KEPT):
            self.taker.drain(public.name)
            for part in self.plan.members:
                self._remember(part)
                self._write_beside(part)
                self._write(part, part.after)
                reached(f"finish config {part.name}")
            self._take(*(p.name for p in self.plan.members))
            self._remember(public)
            self._write_beside(public)
            self._write(public, public.after)
            reached(f"finish config {public.name}")
            self._take(public.name)
            if self.taker.runs:
                time.sleep(BEGIN_S)
            self._remove_sides()
        if self.plan.route != CANARY:
            if self._noted(ledger.read(self.root)) != ledger.read(self.root):
                ledger.update(self.root, self._noted)
            reached("ledger")
        journal.clear(self.staging)

    def _noted(self, before: Ledger) -> Ledger:
        after = before
        for part in self.plan.parts:
            after = after.with_held(part.name, part.held)
        history = before.history.get(self.plan.name, ())
        if self.plan.by and not (history and history[-1].version == self.plan.version):
            if self.plan.previous is not None:  # what served without a line in the history is worth going back to
                after = after.with_served(self.plan.name, Served(self.plan.previous, self.plan.at, "found"))
            after = after.with_served(self.plan.name, Served(self.plan.version, self.plan.at, self.plan.by))
        return after

    # ---- back

    def _undo_after(self, cause: BaseException) -> None:
        try:
            self.undo()
        except (ConchError, OSError) as error:
            raise Unfinished(
                f"the switch of {self.plan.name} failed, and taking it back did not succeed either",
                got=f"{cause}\nthen: {error}",
                fix="run any command that changes this repository again when the server answers: it finishes first",
            ) from cause

    def undo(self) -> None:
        """Put everything back as it was, and forget the journal; files even when the server does not follow.

        Raises: ConchError from the server, OSError; the journal is still there then.
        """
        journal.give_room(self.staging)
        failure: ConchError | None = None
        try:
            self._undo()
        except ConchError as error:
            failure = error
            Switch(self.plan, self.root, self.staging, NoServer())._undo()
            with contextlib.suppress(ConchError):  # perhaps it had never left what lies there again
                self._take(*(p.name for p in self.plan.parts if p.loaded))
                failure = None
        if failure is not None:
            raise failure
        journal.clear(self.staging)

    def _undo(self) -> None:
        self._stage = "undo "
        back = [part for part in reversed(self.plan.parts) if part.before is not None]
        if self.plan.route != CANARY:
            for part in reversed(self.plan.parts):
                if part.before is None:
                    self._remove_model(part.name)
                else:
                    self._let_old_serve(part)
        for side in reversed(self.plan.sides):
            self._remove_model(side, wait=self.plan.route == CANARY)
        for part in back:
            if part.added:
                files.move_out(self.root / part.name / str(self.plan.version), self.staging)
                reached(f"undo version {part.name}")
            self._write(part, part.before or "")
            reached(f"undo config {part.name}")
        self._take(*(p.name for p in back if p.loaded))

    def _let_old_serve(self, part: Part) -> None:
        """Pinned while the new version's files are still there, so that no config ever meets the other's files."""
        there = part.added and (self.root / part.name / str(self.plan.version)).exists()
        before = self._text(part)
        for beside in part.beside:
            self._restore(part, beside)
        self._write(part, part.pinned if there else part.before or "")
        reached(f"undo pin {part.name}")
        if before == self._text(part):
            return
        if part.loaded:
            self._take(part.name)
            self.taker.drain(part.name)
        else:
            self.taker.remove(part.name)

    def _restore(self, part: Part, beside: Beside) -> None:
        path = self.root / part.name / beside.name
        if beside.before is None:
            path.unlink(missing_ok=True)
        else:
            files.write(path, base64.b64decode(beside.before), self.staging)

    # ---- single steps

    def _take(self, *names: str) -> None:
        if names:
            self.taker.take(self.root, names)
            reached(f"{self._stage}take {' '.join(names)}")

    def _write(self, part: Part, text: str) -> None:
        files.write_config(self.root / part.name, text, self.staging)

    def _text(self, part: Part) -> str | None:
        return files.read_config_text(self.root / part.name)

    def _write_beside(self, part: Part) -> None:
        for beside in part.beside:
            files.write(self.root / part.name / beside.name, base64.b64decode(beside.after), self.staging)

    def _remember(self, part: Part) -> None:
        """Keep the config of a version that has no manifest to keep it: going back needs it."""
        previous = self.plan.previous
        if not part.before or previous is None or part.before == part.after:
            return
        path = remembered_config(self.staging, part.name, previous)
        version = self.root / part.name / str(previous)
        if path.exists() or not version.is_dir() or (version / "manifest.json").exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, part.before.encode(), self.staging)

    def _remove_sides(self) -> None:
        for side in self.plan.sides:
            self._remove_model(side, wait=False)

    def _remove_model(self, name: str, *, wait: bool = True) -> None:
        files.move_out(self.root / name, self.staging)
        reached(f"{self._stage}remove {name}")
        self.taker.remove(name, wait=wait)


def recover(root: Path, staging: Path, taker: Taker) -> str | None:
    """Finish what a process that died has left; says what was done. The repository's lock is held by the caller.

    Raises: ConchError, OSError.
    """
    _sweep(staging)
    plan = journal.read(staging)
    done = None
    if plan is not None:
        Switch(plan, root, staging, taker).recover()
        what = f"the switch of {plan.name} to version {plan.version}"
        done = f"finished {what}" if plan.phase == COMMITTED else f"took back {what}"
        done += f", which process {plan.pid} had begun"
    _let_strays_go(root, taker)
    return done


def _let_strays_go(root: Path, taker: Taker) -> None:
    """Side models that a server still has, though their folders went when no server was told."""
    for name in taker.loaded_models():
        side = side_models.parse(name)
        if side is not None and (root / side.model).is_dir() and not (root / name).exists():
            taker.remove(name)


def _sweep(staging: Path) -> None:
    for path in staging.glob(f"{files.GONE}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)


def _needed(staged: Path | None) -> Path:
    if staged is None:
        raise ValueError("this switch adds versions, so it needs a stage")
    return staged
