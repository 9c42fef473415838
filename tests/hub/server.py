"""A Hub on loopback that speaks the protocol of `huggingface_hub`, with a tap for faults on every request.

It keeps git's rules that matter here: commits are atomic, on top of a parent that must be the head; a tag does not
move; a file is LFS or regular, and its id is that of git.
"""

import asyncio
import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

WRITER = "hf_" + "w" * 30
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass
class Commit:
    oid: str
    title: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        wanted = self.tags.get(revision, revision)
        if wanted == "main":
            return self.head
        return next((commit for commit in self.commits if commit.oid == wanted), None)


@dataclass
class Hub:
    """What is on the Hub, and what goes wrong on the way there.

    `fault` is asked for every request by the name of its operation, such as "commit", and gives None or: "500",
    "412", "drop" (done, but the answer is lost), "lost" (never arrives), "slow", and for "resolve" also "truncate" and
    "corrupt".
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    fault: Callable[[str], str | None] = lambda operation: None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, repo: str, *, private: bool = False, files: dict[str, bytes] | None = None) -> Repo:
        first = Commit(_oid(repo), "initial commit", "", {".gitattributes": b"", **(files or {})})
        return self.repos.setdefault(repo, Repo(private, [first]))

    def put(self, repo: str, files: dict[str, bytes | None], *, title: str = "edit") -> str:
        """A commit by somebody else; None takes a file away."""
        with self.lock:
            there = self.repos[repo]
            now = {**there.head.files, **{path: data for path, data in files.items() if data is not None}}
            now = {path: data for path, data in now.items() if path not in files or files[path] is not None}
            there.commits.append(
                Commit(_oid(f"{repo}{len(there.commits)}{title}{time.monotonic_ns()}"), title, "", now)
            )
            return there.head.oid


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", said: str = "") -> None:
        self.status, self.code, self.said = status, code, said


def application(hub: Hub) -> FastAPI:
    app = FastAPI()

    @app.exception_handler(Refusal)
    def refuse(request: Request, refusal: Refusal) -> Response:
        headers = {"X-Error-Code": refusal.code} if refusal.code else {}
        return JSONResponse({"error": refusal.said}, refusal.status, {**headers, "X-Error-Message": refusal.said})

    def reach(request: Request, org: str, name: str, *, write: bool = False) -> Repo:
        writer = request.headers.get("authorization") == f"Bearer {WRITER}"
        repo = hub.repos.get(f"{org}/{name}")
        if repo is None or (repo.private and not writer):
            raise Refusal(404 if writer else 401, "RepoNotFound", "Repository not found")
        if write and not writer:
            raise Refusal(403, "", "You need write access")
        return repo

    def commit_at(repo: Repo, revision: str) -> Commit:
        found = repo.at(revision)
        if found is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def info(repo_id: str, repo: Repo, commit: Commit) -> dict[str, Any]:
        tags = _tags(repo.head.files.get("README.md", b"").decode())
        return {
            "id": repo_id,
            "sha": commit.oid,
            "private": repo.private,
            "tags": tags,
            "downloads": 0,
            "likes": 0,
            "lastModified": "2026-01-02T03:04:05.000Z",
            "siblings": [{"rfilename": path} for path in commit.files],
        }

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        asked = await request.json()
        repo_id = f"{asked['organization']}/{asked['name']}"
        if request.headers.get("authorization") != f"Bearer {WRITER}":
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        with hub.lock:
            known = repo_id in hub.repos
            hub.create(repo_id, private=asked.get("visibility") == "private")
        return JSONResponse({"url": f"{hub.url}/{repo_id}"}, 409 if known else 200)

    @app.post("/api/validate-yaml")
    async def validate() -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    @app.get("/api/models")
    def models(request: Request) -> list[dict[str, Any]]:
        wanted, search = request.query_params.get("filter"), request.query_params.get("search")
        author = request.query_params.get("author")
        found = [info(key, repo, repo.head) for key, repo in hub.repos.items() if not repo.private]
        found = [m for m in found if not wanted or wanted in m["tags"]]
        found = [m for m in found if not author or m["id"].startswith(f"{author}/")]
        return [m for m in found if not search or search in m["id"]]

    @app.get("/api/models/{org}/{name}")
    def model(request: Request, org: str, name: str) -> dict[str, Any]:
        repo = reach(request, org, name)
        return info(f"{org}/{name}", repo, repo.head)

    @app.get("/api/models/{org}/{name}/revision/{revision:path}")
    def model_at(request: Request, org: str, name: str, revision: str) -> dict[str, Any]:
        repo = reach(request, org, name)
        return info(f"{org}/{name}", repo, commit_at(repo, revision))

    @app.get("/api/models/{org}/{name}/refs")
    def refs(request: Request, org: str, name: str) -> dict[str, Any]:
        repo = reach(request, org, name)
        tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": c} for t, c in repo.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
        return {"branches": [main], "converts": [], "tags": tags}

    @app.get("/api/models/{org}/{name}/commits/{revision:path}")
    def commits(request: Request, org: str, name: str, revision: str) -> list[dict[str, Any]]:
        repo = reach(request, org, name)
        commit_at(repo, revision)
        date, authors = "2026-01-02T03:04:05.000Z", [{"user": "writer"}]
        return [
            {"id": c.oid, "title": c.title, "message": c.message, "date": date, "authors": authors}
            for c in reversed(repo.commits)
        ]

    @app.post("/api/models/{org}/{name}/paths-info/{revision:path}")
    async def paths_info(request: Request, org: str, name: str, revision: str) -> list[dict[str, Any]]:
        asked = parse_qs((await request.body()).decode()).get("paths", [])
        commit = commit_at(reach(request, org, name), revision)
        return [_entry(path, commit.files[path]) for path in asked if path in commit.files]

    @app.post("/api/models/{org}/{name}/preupload/{revision:path}")
    async def preupload(request: Request, org: str, name: str, revision: str) -> dict[str, Any]:
        asked = await request.json()
        files = commit_at(reach(request, org, name, write=True), revision).files

        def one(path: str) -> dict[str, Any]:
            old = files.get(path)
            mode = "lfs" if _is_lfs(path) else "regular"
            oid = None if old is None else hashlib.sha256(old).hexdigest() if mode == "lfs" else git_blob(old)
            return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

        return {"files": [one(file["path"]) for file in asked["files"]]}

    @app.post("/{org}/{name}.git/info/lfs/objects/batch")
    async def batch(request: Request, org: str, name: str) -> dict[str, Any]:
        reach(request, org, name, write=True)

        def one(item: dict[str, Any]) -> dict[str, Any]:
            upload = {"href": f"{hub.url}/lfs/{item['oid']}"}
            actions = {"upload": upload, "verify": {"href": f"{hub.url}/lfs-verify"}}
            return item if item["oid"] in hub.objects else {**item, "actions": actions}

        return {"transfer": "basic", "objects": [one(item) for item in (await request.json())["objects"]]}

    @app.put("/lfs/{oid}")
    async def upload(request: Request, oid: str) -> Response:
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refusal(400, "", "wrong content")
        hub.objects[oid] = data
        return Response()

    @app.post("/lfs-verify")
    async def verify(request: Request) -> Response:
        asked = await request.json()
        if len(hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(400, "", "not there")
        return Response()

    @app.post("/api/models/{org}/{name}/commit/{revision:path}")
    async def commit(request: Request, org: str, name: str, revision: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        repo = reach(request, org, name, write=True)
        with hub.lock:
            header = lines[0]["value"]
            if header.get("parentCommit") not in (None, repo.head.oid):
                raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
            files = dict(repo.head.files)
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            oid = _oid(f"{org}{name}{len(repo.commits)}{time.monotonic_ns()}")
            repo.commits.append(Commit(oid, header["summary"], header["description"], files))
        return {"commitOid": oid, "commitUrl": f"{hub.url}/{org}/{name}/commit/{oid}", "success": True}

    @app.post("/api/models/{org}/{name}/tag/{revision:path}")
    async def tag(request: Request, org: str, name: str, revision: str) -> Response:
        asked = await request.json()
        repo = reach(request, org, name, write=True)
        with hub.lock:
            if asked["tag"] in repo.tags:
                raise Refusal(409, "", "Tag reference exists already")
            repo.tags[asked["tag"]] = commit_at(repo, revision).oid
        return Response()

    @app.api_route("/{org}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve(request: Request, org: str, name: str, revision: str, path: str) -> Response:
        commit = commit_at(reach(request, org, name), revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            return Response(status_code=404, headers={**headers, "X-Error-Code": "EntryNotFound"})
        data = commit.files[path]
        lfs = _is_lfs(path)
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest() if lfs else git_blob(data)}"'
        if lfs:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data))}
        begin = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        headers["Content-Length"] = str(len(data) - begin)
        return Response(b"" if request.method == "HEAD" else data[begin:], 206 if begin else 200, headers)

    return app


class Faults:
    """Spoils requests on their way, below the application."""

    def __init__(self, app: FastAPI, hub: Hub) -> None:
        self.app, self.hub = app, hub

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        operation = _operation(scope["method"], scope["path"])
        self.hub.requests.append(operation)
        self.hub.authorizations |= {v.decode() for k, v in scope["headers"] if k == b"authorization"}
        fault = self.hub.fault(operation)
        if fault is None or fault == "slow":
            await asyncio.sleep(0.05 if fault else 0)
            return await self.app(scope, receive, send)
        if fault in ("500", "412"):
            await _drain(receive)
            await send({"type": "http.response.start", "status": int(fault), "headers": [(b"content-length", b"0")]})
            return await send({"type": "http.response.body", "body": b""})
        answer: list[MutableMapping[str, Any]] = []

        async def keep(message: MutableMapping[str, Any]) -> None:
            answer.append(message)

        if fault == "lost":
            await _drain(receive)
        else:
            await self.app(scope, receive, keep)
        if fault in ("truncate", "corrupt"):
            body = b"".join(m.get("body", b"") for m in answer)
            await send(answer[0])
            spoilt = body[: len(body) // 2] if fault == "truncate" else body[:-1] + bytes([body[-1] ^ 1])
            await send({"type": "http.response.body", "body": spoilt, "more_body": fault == "truncate"})
            if fault == "corrupt":
                return None
            await asyncio.sleep(0.01)
        send.__self__.transport.abort()  # the connection is gone, as when a server or a cable dies
        return None


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub in a thread of this process."""
    hub = Hub()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    hub.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(Faults(application(hub), hub), log_level="critical", lifespan="off", timeout_keep_alive=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield hub
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_blob(data)}
    if _is_lfs(path):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def _is_lfs(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))


def _tags(readme: str) -> list[str]:
    import yaml

    if not readme.startswith("---"):
        return []
    data = yaml.safe_load(readme.split("---")[1])
    bases = data.get("base_model") or []
    return [*data.get("tags", []), data.get("library_name", ""), *(f"base_model:{base}" for base in bases)]


def _oid(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _operation(method: str, path: str) -> str:
    parts = path.strip("/").split("/")
    if parts[:2] == ["api", "repos"]:
        return "create"
    if parts[0] == "lfs":
        return "put"
    if "resolve" in parts:
        return "head" if method == "HEAD" else "resolve"
    if parts[:2] == ["api", "models"]:
        return parts[4] if len(parts) > 4 else "info" if len(parts) > 2 else "list"
    return parts[-1]


async def _drain(receive: Any) -> None:
    while (await receive()).get("more_body"):
        pass
