"""Source rows: made in one place, gathered into blocks of bounded size."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.schema import Status, source_schema
from pipeline.storage.location import redact

BLOCK_BYTES = 16 * 2**20
BLOCK_ROWS = 512
Row = dict[str, Any]


def make_row(image_id: str, shard: str, key: str, **values: Any) -> Row:
    """A row of `source_schema`; what is not given is null, the status is ok."""
    row = {"image_id": image_id, "shard": shard, "key": key, "status": Status.OK, **values}
    return {name: clean(v) if isinstance(v, str) else v for name, v in row.items()}


def failure(error: BaseException) -> str:
    """An error as a row tells it: kind and message, without what URIs give away."""
    return redact(f"{type(error).__name__}: {error}")[:500]


def is_corruption(error: BaseException) -> bool:
    """Whether a reader of some format gave up on the data, and not the storage on the reader.

    Libraries raise a bare OSError then, without the number that errors of the system have.
    """
    return type(error) is OSError and error.errno is None


def clean(text: str) -> str:
    """The text with what UTF-8 cannot hold (lone surrogates, odd file names) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def blocks(rows: Iterable[Row], carry: Mapping[str, str]) -> Iterator[pa.Table]:
    """Gather rows into tables of at most `BLOCK_ROWS` rows and about `BLOCK_BYTES` bytes."""
    schema = source_schema(carry)
    held: list[Row] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row.get("bytes") or b"")
        if len(held) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield pa.Table.from_pylist(held, schema=schema)
            held, size = [], 0
    if held:
        yield pa.Table.from_pylist(held, schema=schema)


def text_of(value: Any) -> str | None:
    """A label or caption as text: numbers as they print, blank as null."""
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    return text.strip() or None


def carried(values: Mapping[str, Any], carry: Mapping[str, str]) -> Row:
    """The carried columns in their declared types; what does not convert is null."""
    return {name: _convert(values.get(name), kind) for name, kind in carry.items()}


def _convert(value: Any, kind: str) -> Any:
    if value is None:
        return None
    try:
        return _CONVERTERS[kind](value)
    except (TypeError, ValueError, OverflowError):
        return None


def _as_bool(value: Any) -> bool:
    if isinstance(value, str):
        lowered = value.strip().lower()
        if lowered not in ("true", "false", "1", "0"):
            raise ValueError(value)
        return lowered in ("true", "1")
    return bool(value)


def _as_int64(value: Any) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise OverflowError(value)
    return number


_CONVERTERS: dict[str, Any] = {"string": str, "int": _as_int64, "float": float, "bool": _as_bool}
