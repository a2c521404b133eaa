"""A stand-in for the W&B server: answers enough for the client to be content, and keeps what it was told."""

import contextlib
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """What arrived: `runs` by id (identity, config, history, summary, exit code), `artifacts`, `used`, `alerts`."""

    def __init__(self):
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.used: list[tuple[str, str]] = []
        self.alerts: list[dict[str, Any]] = []
        self.files: list[str] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def die(self) -> None:
        """Stop listening; open connections get no answers either."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()

    def query(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The answer to one GraphQL query."""
        with self._lock:
            for name, answer in _ANSWERS.items():
                if name in query:
                    return answer(self, given)
        return {}

    def stream(self, run: str, told: dict[str, Any]) -> None:
        """History lines, the summary and the end of a run."""
        with self._lock:
            held = self.runs[run]
            for name, part in told.get("files", {}).items():
                lines = [json.loads(line) for line in part["content"] if name.endswith((".jsonl", ".json"))]
                if name == "wandb-history.jsonl":
                    # A client that gets no answer sends the same lines again, from the same offset.
                    held["history"][part["offset"] :] = lines
                elif name == "wandb-summary.json":
                    held["summary"] = lines[-1]
            if told.get("complete"):
                held["exit_code"] = told["exitcode"]

    def upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        """A run that begins, or one whose configuration changed."""
        name = given["name"]
        fresh = name not in self.runs
        if fresh or given.get("groupName") or given.get("displayName"):
            old = self.runs.get(name, {})
            self.runs[name] = {"history": [], "summary": {}, "exit_code": None, "starts": old.get("starts", 0) + 1}
        run = self.runs[name]
        run |= {key: value for key, value in given.items() if value is not None}
        project = {"id": "cHJvamVjdA==", "name": run["project"], "entity": _ENTITY}
        bucket = {"id": "cnVu", "name": name, "displayName": run.get("displayName"), "project": project}
        bucket |= {"description": None, "config": None, "sweepName": None, "historyLineCount": 0}
        return {"upsertBucket": {"bucket": bucket, "inserted": fresh}}

    def create(self, given: dict[str, Any]) -> dict[str, Any]:
        """An artifact; one with the same name and digest is the same version."""
        told = given["input"]
        id = f"{told['artifactCollectionName']}:{told['digest']}"
        held = self.artifacts.setdefault(id, {**told, "makers": []})
        if told["runName"]:
            held["makers"].append(told["runName"])
        return {"createArtifact": {"artifact": {"id": id, "state": "COMMITTED", "artifactSequence": _NO_LATEST}}}

    def by_id(self, given: dict[str, Any]) -> dict[str, Any]:
        """All of an artifact that the client asks for."""
        told = self.artifacts[given["id"]]
        project = {"id": "1", "internalId": "1", "name": told["projectName"], "entity": _ENTITY}
        sequence = {"__typename": "ArtifactSequence", "name": told["artifactCollectionName"], "project": project}
        return {
            "artifact": {
                "__typename": "Artifact",
                "id": given["id"],
                "artifactSequence": sequence,
                "versionIndex": 0,
                "artifactType": {"name": told["artifactTypeName"]},
                "description": None,
                "metadata": told["metadata"],
                "ttlDurationSeconds": -1,
                "ttlIsInherited": True,
                "tags": [],
                "historyStep": None,
                "state": "COMMITTED",
                "size": 0,
                "digest": told["digest"],
                "commitHash": None,
                "fileCount": 0,
                "createdAt": "2026-01-01T00:00:00",
                "updatedAt": None,
                "aliases": [],
            }
        }

    def use(self, given: dict[str, Any]) -> dict[str, Any]:
        """A run that took an artifact in."""
        told = given["input"]
        self.used.append((told["runName"], told["artifactID"].partition(":")[0]))
        return {"useArtifact": {"artifact": {"id": told["artifactID"]}}}

    def create_files(self, given: dict[str, Any]) -> dict[str, Any]:
        """Where files may be uploaded."""
        places = [{"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": "cnVu", "uploadHeaders": [], "files": places}}

    def alert(self, given: dict[str, Any]) -> dict[str, Any]:
        """A message to a person."""
        self.alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}


_ENTITY = {"id": "ZW50aXR5", "name": "local"}
_NO_LATEST = {"latestArtifact": None}
_VIEWER = {
    "id": "dmlld2Vy",
    "entity": "local",
    "username": "local",
    "email": "",
    "flags": "{}",
    "teams": {"edges": []},
}
_ANSWERS = {
    "upsertBucket": Server.upsert,
    "notifyScriptableRunAlert": Server.alert,
    "createRunFiles": Server.create_files,
    "createArtifact(": Server.create,
    "useArtifact": Server.use,
    "query ArtifactByID": Server.by_id,
    "query ArtifactType": lambda server, given: {"project": None},
    "query RunResumeStatus": lambda server, given: {"model": {"bucket": None}},
    "serverInfo": lambda server, given: {"serverInfo": {"features": []}},
    "viewer": lambda server, given: {"viewer": _VIEWER},
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self.server_of.files.append(self.path.removeprefix("/upload/"))
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            told = json.loads(body)
            self._answer({"data": self.server_of.query(told["query"], told.get("variables") or {})})
            return
        if self.path.endswith("/file_stream"):
            self.server_of.stream(self.path.split("/")[-2], json.loads(body))
        self._answer({})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
