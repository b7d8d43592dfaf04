"""Milvus as the durable vector store, and the only importer of pymilvus.

What was learnt the hard way stands here once: reads map by id (a server drops order and duplicates), writes are upserts of full
rows, a reopened collection is loaded first, and keys are percent-encoded, because pymilvus pastes them unescaped into its
filter expressions (a backslash in the last key of a batch made its iterator return the same batch for ever).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, cast
from urllib.parse import quote, unquote

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import ConnectionConfigException, MilvusException

from contracts.errors import SettingsError, UnavailableError, VectorError
from contracts.ports import Matrix, VectorRow
from contracts.records import Tier
from contracts.subjects import split_subject
from hein.stores.rows import MAX_DOCUMENT_BYTES, MAX_HASH_BYTES, checked, vector_checked

Consistency = Literal["Strong", "Session", "Bounded", "Eventually"]

WRITE_BATCH: Final = 200  # measured: batch 1 gives 1k rows/s, 20 gives 12k, 200 stays within a call of a few ms
READ_BATCH: Final = 500  # with documents of 64 KB still below 40 MB an answer
_SAFE: Final = ":-._~@ "  # characters of a key that stay as they are
_MAX_KEY_BYTES: Final = 4_096  # 264 characters of 4 bytes, each three characters when percent-encoded, fit
_FIELDS: Final = ["subject", "vector", "tier", "as_of_ms", "trigger_ms", "source_hash", "text_hash", "document"]
# gRPC shares connections between channels and waits up to two minutes after a refusal: a restarted server would stay "down".
_GRPC: Final = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
_FAILURES: Final = (MilvusException, grpc.RpcError, grpc.FutureTimeoutError)

# pymilvus logs a traceback of every failed call before it raises; each of them is raised here again, with what to do.
for _name in ("pymilvus", "pymilvus.decorators", "pymilvus.client.connection_manager", "pymilvus.client.grpc_handler"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class MilvusVectorStore:
    """`contracts.ports.VectorStore` on one Milvus collection, which is created if missing.

    The connection is opened by the first call and again after a failure, so an object made while the server is down works
    as soon as it is up.

    Args:
        uri: ``http://host:port``.
        token: ``user:password`` or an API key; empty for none.
        collection: Name of the collection. One writer per collection.
        dim: d, the length of every vector.
        timeout_s: Deadline of one call.
        consistency: Of reads. ``Strong`` sees every earlier upsert, also of a writer that died; ``Bounded`` is some hundred ms
            faster on a server and may miss the last moments (for readers that only fall back on it).
    """

    def __init__(  # noqa: PLR0913 - where, which and how to read: six words that streams.wiring alone writes
        self, uri: str, token: str, collection: str, dim: int, timeout_s: float, *, consistency: Consistency = "Strong"
    ) -> None:
        self._uri = uri
        self._token = token
        self._collection = collection
        self._dim = dim
        self._timeout_s = timeout_s
        self._consistency: Consistency = consistency
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._dim

    def upsert(self, rows: Sequence[VectorRow]) -> None:
        """Write rows in batches, last one per subject wins."""
        wanted = [_to_milvus(row) for row in checked(rows, self._dim)]
        for start in range(0, len(wanted), WRITE_BATCH):
            self._call("upsert", data=wanted[start : start + WRITE_BATCH])

    def fetch(self, subjects: Sequence[str]) -> dict[str, VectorRow]:
        """Rows by subject; what is not there is absent. Sees every earlier upsert."""
        keys = [_key(subject) for subject in dict.fromkeys(subjects)]
        rows: dict[str, VectorRow] = {}
        for start in range(0, len(keys), READ_BATCH):
            part = keys[start : start + READ_BATCH]
            answer = self._call("get", ids=part, output_fields=_FIELDS, consistency_level=self._consistency)
            rows.update((row.subject, row) for row in map(_from_milvus, answer))
        return rows

    def delete(self, subjects: Sequence[str]) -> None:
        """Forget subjects; unknown ones are ignored."""
        keys = [_key(subject) for subject in dict.fromkeys(subjects)]
        for start in range(0, len(keys), READ_BATCH):
            self._call("delete", ids=keys[start : start + READ_BATCH])

    def scan(self, batch: int = 1000) -> Iterator[list[VectorRow]]:
        """Every row, in batches, each subject once. A failure in the middle ends it: scan again from the start."""
        rows = self._call("query_iterator", batch_size=batch, output_fields=_FIELDS, consistency_level=self._consistency)
        try:
            while part := rows.next():
                yield [_from_milvus(row) for row in part]
        except _FAILURES as error:
            raise _unavailable(self._uri, error) from error
        finally:
            rows.close()

    def search(self, vector: Matrix, k: int, kind: str) -> list[tuple[str, float]]:
        """The k nearest subjects of a kind by inner product, best first."""
        hits = self._call(
            "search",
            data=[vector_checked(vector, self._dim)],
            limit=k,
            filter=f'kind == "{quote(kind)}"',
            output_fields=["subject"],
            search_params={"metric_type": "IP"},
            consistency_level=self._consistency,
        )
        return [(unquote(hit["subject"]), float(hit["distance"])) for hit in hits[0]]

    def count(self) -> int:
        """Number of rows."""
        answer = self._call("query", filter="", output_fields=["count(*)"], consistency_level=self._consistency)
        return int(answer[0]["count(*)"])

    def close(self) -> None:
        """Let go of the connection; a later call opens it again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _call(self, name: str, **arguments: Any) -> Any:
        """Call the client. Every call is idempotent: one that fails on a stale connection (a restart) is done again, once."""
        started = time.monotonic()
        client, is_new = self._connected()
        try:
            return getattr(client, name)(self._collection, timeout=self._timeout_s, **arguments)
        except _FAILURES as error:
            self._drop(client)
            if is_new or time.monotonic() - started > self._timeout_s / 2:
                raise _unavailable(self._uri, error) from error
        client, _ = self._connected()
        try:
            return getattr(client, name)(self._collection, timeout=self._timeout_s, **arguments)
        except _FAILURES as error:
            self._drop(client)
            raise _unavailable(self._uri, error) from error

    def _connected(self) -> tuple[MilvusClient, bool]:
        with self._lock:
            if self._client is not None:
                return self._client, False
            client = connect(self._uri, self._token, self._timeout_s)
            try:
                _open(client, self._collection, self._dim, self._timeout_s)
            except _FAILURES as error:
                client.close()
                raise _unavailable(self._uri, error) from error
            except VectorError:
                client.close()
                raise
            self._client = client
            return client, True

    def _drop(self, client: MilvusClient) -> None:
        with self._lock:
            if self._client is client:
                self._client = None
        client.close()


def connect(uri: str, token: str, timeout_s: float) -> MilvusClient:
    """A client with a channel of its own.

    Raises:
        UnavailableError: The server does not answer.
        SettingsError: The address is not one.
    """
    try:
        return MilvusClient(uri, token=token, timeout=timeout_s, dedicated=True, grpc_options=_GRPC)
    except ConnectionConfigException as error:
        raise SettingsError(
            f"milvus.uri {uri!r} ({error.message})", wanted="http://host:port", todo="mend the setting"
        ) from error
    except _FAILURES as error:
        raise _unavailable(uri, error) from error


def list_collections(uri: str, token: str, prefix: str = "", timeout_s: float = 10.0) -> list[str]:
    """Names of the collections that begin with ``prefix``, sorted.

    Raises:
        UnavailableError: The server does not answer.
    """
    client = connect(uri, token, timeout_s)
    try:
        return sorted(name for name in client.list_collections(timeout=timeout_s) if name.startswith(prefix))
    except _FAILURES as error:
        raise _unavailable(uri, error) from error
    finally:
        client.close()


def drop_collection(uri: str, token: str, collection: str, timeout_s: float = 10.0) -> None:
    """Remove a collection with all its rows; one that is not there is ignored.

    Raises:
        UnavailableError: The server does not answer.
    """
    client = connect(uri, token, timeout_s)
    try:
        if client.has_collection(collection, timeout=timeout_s):
            client.drop_collection(collection, timeout=timeout_s)
    except _FAILURES as error:
        raise _unavailable(uri, error) from error
    finally:
        client.close()


def _open(client: MilvusClient, collection: str, dim: int, timeout_s: float) -> None:
    if not client.has_collection(collection, timeout=timeout_s):
        _create(client, collection, dim, timeout_s)
    fields = client.describe_collection(collection, timeout=timeout_s)["fields"]
    found = {field["name"]: field["params"].get("dim") for field in fields}
    if int(found.get("vector") or 0) != dim:
        raise VectorError(
            f"collection {collection!r} with vectors of {found.get('vector')} numbers",
            wanted=str(dim),
            todo="set milvus.prefix to a new one for another encoder or size, or drop the collection",
        )
    client.load_collection(collection, timeout=timeout_s)


def _create(client: MilvusClient, collection: str, dim: int, timeout_s: float) -> None:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("subject", DataType.VARCHAR, is_primary=True, max_length=_MAX_KEY_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("kind", DataType.VARCHAR, max_length=16)
    schema.add_field("tier", DataType.VARCHAR, max_length=16)
    schema.add_field("as_of_ms", DataType.INT64)
    schema.add_field("trigger_ms", DataType.INT64)
    schema.add_field("source_hash", DataType.VARCHAR, max_length=MAX_HASH_BYTES)
    schema.add_field("text_hash", DataType.VARCHAR, max_length=MAX_HASH_BYTES)
    schema.add_field("document", DataType.VARCHAR, max_length=MAX_DOCUMENT_BYTES)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    try:
        client.create_collection(collection, schema=schema, index_params=index, consistency_level="Strong", timeout=timeout_s)
    except MilvusException:
        if not client.has_collection(collection, timeout=timeout_s):  # else another process was faster
            raise


def _unavailable(uri: str, error: Exception) -> UnavailableError:
    reason = " ".join(str(getattr(error, "message", "") or error).split())[:300]
    return UnavailableError(
        f"no answer from Milvus at {uri} ({reason})",
        wanted="a running Milvus server",
        todo="start it or mend milvus.uri",
    )


def _key(subject: str) -> str:
    return quote(subject, safe=_SAFE)


def _to_milvus(row: VectorRow) -> dict[str, Any]:
    return {
        "subject": _key(row.subject),
        "vector": row.vector.astype(np.float32, copy=False),
        "kind": split_subject(row.subject)[0],
        "tier": row.tier,
        "as_of_ms": row.as_of_ms,
        "trigger_ms": row.trigger_ms,
        "source_hash": row.source_hash,
        "text_hash": row.text_hash,
        "document": row.document,
    }


def _from_milvus(row: dict[str, Any]) -> VectorRow:
    return VectorRow(
        subject=unquote(row["subject"]),
        vector=np.asarray(row["vector"], dtype=np.float32),
        tier=cast(Tier, row["tier"]),
        as_of_ms=int(row["as_of_ms"]),
        trigger_ms=int(row["trigger_ms"]),
        source_hash=row["source_hash"],
        text_hash=row["text_hash"],
        document=row["document"],
    )
