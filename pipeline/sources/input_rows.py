"""The rows that readers yield, and blocks of them of bounded size."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.schema import Status, source_schema
from pipeline.storage.location import redact

READ_BLOCK_BYTES = 16 * 2**20
BLOCK_ROWS = 512
Row = dict[str, Any]


def make_row(image_id: str, shard: str, key: str, **values: Any) -> Row:
    """Make a row of `source_schema`; missing values are null, and the status is ok by default."""
    row = {"image_id": image_id, "shard": shard, "key": key, "status": Status.OK, **values}
    return {name: clean(v) if isinstance(v, str) else v for name, v in row.items()}


def failure(error: BaseException) -> str:
    """The text of an error for a row: class and message, without secrets of URIs."""
    return redact(f"{type(error).__name__}: {error}")[:500]


def is_corruption(error: BaseException) -> bool:
    """Whether an error means damaged data and not a failing storage.

    Libraries raise a bare OSError for damaged data; errors of the system have a number.
    """
    return type(error) is OSError and error.errno is None


def clean(text: str) -> str:
    """The text with escapes for lone surrogates, which odd file names have and UTF-8 has not."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def blocks(rows: Iterable[Row], carry: Mapping[str, str]) -> Iterator[pa.Table]:
    """Collect rows into tables of at most `BLOCK_ROWS` rows and about `READ_BLOCK_BYTES` bytes."""
    schema = source_schema(carry)
    pending: list[Row] = []
    size = 0
    for row in rows:
        pending.append(row)
        size += len(row.get("bytes") or b"")
        if len(pending) >= BLOCK_ROWS or size >= READ_BLOCK_BYTES:
            yield pa.Table.from_pylist(pending, schema=schema)
            pending, size = [], 0
    if pending:
        yield pa.Table.from_pylist(pending, schema=schema)


def text_of(value: Any) -> str | None:
    """A label or caption as text: a number as it prints, None for blank text and NaN."""
    if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
        return None
    text = value if isinstance(value, str) else str(value)
    return text.strip() or None


def captions_of(value: Any) -> tuple[str, ...]:
    """The captions in a value, which may be a list of several, without blank and repeated ones."""
    texts = map(text_of, value if isinstance(value, list | tuple) else [value])
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def joined_captions(captions: Iterable[str]) -> str | None:
    """Captions of one image as text: each distinct one on its own lines; None without one."""
    return "\n".join(dict.fromkeys(captions)) or None


def carried(values: Mapping[str, Any], carry: Mapping[str, str]) -> Row:
    """The columns to carry over, in their declared types; values that do not convert are null."""
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
