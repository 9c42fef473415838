"""A PostgreSQL server of our own for the tests, on a loopback port, gone afterwards."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "s3cret-word"


class Unavailable(Exception):
    """Why no server can be started here."""


@contextmanager
def server() -> Iterator[str]:
    """Starts a server; gives the URL of its first database; stops it and removes its files."""
    programs = _programs()
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="contrans-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if os.getuid() == 0:
            entry = pwd.getpwnam(user)
            for path in (folder, folder / "password"):
                os.chown(path, entry.pw_uid, entry.pw_gid)

        def run(*command: str | Path) -> None:
            become = ["runuser", "-u", user, "--"] if os.getuid() == 0 else []
            # Without pipes: the server that pg_ctl leaves behind would hold them open.
            with (folder / "output").open("a+") as output:
                words = [*become, *map(str, command)]
                if subprocess.run(words, cwd=folder, stdout=output, stderr=output).returncode != 0:
                    raise RuntimeError((folder / "output").read_text())

        data, port = folder / "data", _free_port()
        access = ["-A", "scram-sha-256", "-U", "contrans", f"--pwfile={folder / 'password'}"]
        run(programs / "initdb", "-D", data, *access, "-E", "UTF8", "--no-sync")
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -F"
        run(programs / "pg_ctl", "-D", data, "-o", settings, "-w", "-l", data / "log", "start")
        try:
            yield f"postgresql://contrans:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found or not (found[-1] / "pg_ctl").exists():
        raise Unavailable("PostgreSQL's initdb is not installed; on Debian: apt-get install postgresql")
    return found[-1]


def _user() -> str:
    if os.getuid() != 0:
        return ""
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise Unavailable("initdb refuses to run as root and there is no user postgres") from None
    if shutil.which("runuser") is None:
        raise Unavailable("initdb refuses to run as root and there is no runuser to become postgres")
    return "postgres"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
