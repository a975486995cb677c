# SPDX-License-Identifier: BSL-1.0
"""Finds the submissions of a folder, and copies one to where it is graded, without what could lead outside."""
import os
import shlex
import stat
import tarfile
import zipfile
import zlib

MAX_BYTES, MAX_FILES = 200 << 20, 20000
ARCHIVES = ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"


class BadSubmission(Exception):
    pass


def archive_name(name):
    """The name without the end of an archive's name, or nothing."""
    return next((name[:-len(end)] for end in ARCHIVES if name.lower().endswith(end) and len(name) > len(end)), None)


def find(folder):
    """Returns {name: path} of the subfolders and archives of a folder."""
    found = {}
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry)
        if entry.startswith(".") or entry == "__MACOSX":
            continue
        if os.path.isdir(path):
            found[entry] = path
        elif archive_name(entry) and os.path.isfile(path):
            name = archive_name(entry)
            found[entry if name in found or os.path.isdir(os.path.join(folder, name)) else name] = path
    return found


class Copy:
    """Writes files below a folder, and counts them."""

    def __init__(self, target):
        self.target, self.bytes, self.files, self.links, self.left_out = target, 0, 0, [], []

    def path(self, name):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise BadSubmission(f"it contains a file whose name leads out of its folder: {name}")
        self.files += 1
        if self.files > MAX_FILES:
            raise BadSubmission(f"it has more than {MAX_FILES} files")
        return os.path.join(self.target, *parts)

    def folder(self, name):
        os.makedirs(self.path(name), exist_ok=True)

    def file(self, name, source, mode):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            while data := source.read(1 << 16):
                self.bytes += len(data)
                if self.bytes > MAX_BYTES:
                    raise BadSubmission(f"it has more than {MAX_BYTES >> 20} MiB")
                file.write(data)
        os.chmod(path, 0o755 if mode & 0o111 else 0o644)

    def link(self, name, to):
        """Keeps a link until all files are there, so that none is written through it. Without '..' it stays inside."""
        if to.startswith("/") or ".." in to.split("/"):
            self.left_out.append(f"{name}, a link to {to}")
        else:
            self.links.append((self.path(name), to))

    def finish(self):
        for path, to in self.links:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not os.path.lexists(path):
                os.symlink(to, path)


def copy_folder(source, copy):
    for folder, folders, files in os.walk(source):
        inside = os.path.relpath(folder, source)
        folders[:] = [name for name in folders if name != ".git"]
        for name in folders + files:
            path, here = os.path.join(folder, name), os.path.normpath(os.path.join(inside, name))
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                copy.link(here, os.readlink(path))
            elif stat.S_ISDIR(mode):
                copy.folder(here)
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    copy.file(here, file, mode)
            else:
                copy.left_out.append(f"{here}, which is no file")


def copy_zip(path, copy):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                copy.folder(info.filename)
            elif stat.S_ISLNK(mode):
                copy.link(info.filename, archive.read(info)[:4096].decode(errors="replace")
                          if info.file_size < 4096 else "/")
            else:
                with archive.open(info) as file:
                    copy.file(info.filename, file, mode)


def copy_tar(path, copy):
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isdir():
                copy.folder(info.name)
            elif info.issym():
                copy.link(info.name, info.linkname)
            elif info.isreg():
                copy.file(info.name, archive.extractfile(info), info.mode)
            else:
                copy.left_out.append(f"{info.name}, which is no file")


def unpack(source, target):
    """Copies a folder or an archive. Returns where the submission's files are, and what was left out."""
    copy = Copy(target)
    try:
        os.makedirs(target)
        if os.path.isdir(source):
            copy_folder(source, copy)
        elif source.lower().endswith(".zip"):
            copy_zip(source, copy)
        else:
            copy_tar(source, copy)
        copy.finish()
    except (OSError, EOFError, RuntimeError, ValueError, NotImplementedError, tarfile.TarError, zipfile.BadZipFile,
            zlib.error) as error:
        raise BadSubmission(f"it cannot be unpacked: {error}") from error
    inside = [name for name in os.listdir(target) if not name.startswith(".") and name != "__MACOSX"]
    if len(inside) == 1:  # one folder or archive has everything, as in downloads from Moodle
        only = os.path.join(target, inside[0])
        if os.path.isdir(only) and not os.path.islink(only):
            return only, copy.left_out
        if os.path.isfile(only) and archive_name(inside[0]) and not target.endswith(".unpacked"):
            root, left_out = unpack(only, os.path.join(target, ".unpacked"))
            return root, copy.left_out + left_out
    return target, copy.left_out


def how_to_run(root, name, run):
    """The command of a program that a submission contains, with {port} or "$@" for its arguments; else nothing."""
    if name == "server" and run:
        return " ".join(shlex.quote(word).replace("{port}", "'\"$1\"'") for word in shlex.split(run))
    path = os.path.join(root, name)
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return f'./{name} "$@"'
    if os.path.isfile(path + ".py"):
        return f'python3 {name}.py "$@"'
    return None


def write_runner(path, root, command, before):
    """A script that changes to the program's folder and then becomes the program (exec)."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"#!/bin/sh\ncd {shlex.quote(root)} && exec {before}{command}\n")
    os.chmod(path, 0o755)


def give_to(folder, user):
    """Makes a user (of pwd) the owner of all that is in a folder."""
    for place, folders, files in os.walk(folder):
        for name in [".", *folders, *files]:
            os.chown(os.path.join(place, name), user.pw_uid, user.pw_gid, follow_symlinks=False)
