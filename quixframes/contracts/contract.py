"""A `Contract`: the one schema of a topic, and what happens to rows that do not keep it.

As JSON it is for people and other programs to read; the dtypes come back from the Arrow batch without rows that goes
with it, in which the categories are as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from quixframes.contracts.declared import Parameter, Tag, is_text, natural_dtype
from quixframes.contracts.evolution import Difference, differences
from quixframes.errors import ContractError, FrameError, SettingsError
from quixframes.frames import TIME_FIELD, TIME_NAMES, FrameDecoder, FrameEncoder, check_supported, check_values
from quixframes.rules import KEY, TAG

__all__ = ["OUT_OF_RANGE", "POLICIES", "VERSION", "Contract", "OutOfRange", "Policy"]

VERSION = 1

Policy = Literal["raise", "promote", "dead-letter", "allow"]
OutOfRange = Literal["raise", "dead-letter", "missing", "count"]
POLICIES = ("raise", "promote", "dead-letter", "allow")
OUT_OF_RANGE = ("raise", "dead-letter", "missing", "count", None)


@dataclass(frozen=True, eq=False, slots=True)
class Contract:
    """What the rows of a topic have to be like.

    Rows that keep it have one schema: the declared columns in their declared order, each in its declared dtype, live
    and in a replay alike, whatever the order in the frame was and whichever optional columns it had.

    Args:
        parameters: by name: a :class:`Parameter`, or only a dtype.
        tags: by name without ``TAG__``: a :class:`Tag`; or the names, all of them required. Tags that are not declared
            are as undeclared as parameters.
        policy: what happens to rows that do not keep it. Values out of range have a setting of their own.

            * ``"raise"`` (default): an error. Dtypes have to be the declared ones.
            * ``"promote"``: other dtypes are made the declared ones where every value stays the same; else an error.
            * ``"dead-letter"``: as ``"promote"``, but the rows for which that cannot be go to the dead-letter topic,
              and the others pass.
            * ``"allow"``: everything passes as it is, and what differs is counted.
        out_of_range: what happens to values out of their parameter's range: ``"raise"``, ``"dead-letter"`` (the row),
            ``"missing"`` (the value reads as missing), ``"count"`` (default), or None: ranges are not looked at.
        additional: whether columns that are not declared may come along. They follow the declared ones, in their own
            dtypes, so that frames have one schema only as far as it is declared. Default False.

    Raises:
        SettingsError: what is declared cannot be.

    >>> contract = Contract({"speed": Parameter("float64", unit="km/h", range=(0, 400)), "gear": "Int8"})
    >>> contract.schema.names
    ['time', 'speed', 'gear']
    """

    parameters: Mapping[str, Parameter]
    tags: Mapping[str, Tag] = field(default_factory=dict)
    policy: Policy = "raise"
    out_of_range: OutOfRange | None = "count"
    additional: bool = False
    schema: Any = field(init=False, repr=False)
    _text: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parameters = {name: _parameter(name, given) for name, given in dict(self.parameters).items()}
        tags = self.tags if isinstance(self.tags, Mapping) else dict.fromkeys(_names(self.tags), Tag())
        tags = {name: _tag(name, given) for name, given in tags.items()}
        if self.policy not in POLICIES:
            raise SettingsError(f"policy={self.policy!r} has to be one of {', '.join(map(repr, POLICIES))}")
        if self.out_of_range not in OUT_OF_RANGE:
            raise SettingsError(f"out_of_range={self.out_of_range!r} has to be one of {OUT_OF_RANGE}")
        if self.policy == "allow" and self.out_of_range not in (None, "count"):
            raise SettingsError(
                f"policy='allow' changes and refuses nothing, so out_of_range={self.out_of_range!r} cannot be"
            )
        if not isinstance(self.additional, bool):
            raise SettingsError(f"additional={self.additional!r} has to be True or False")
        for name, parameter in parameters.items():
            if self.out_of_range == "missing" and parameter.range is not None and not parameter.nullable:
                raise SettingsError(
                    f"parameter {name!r} is not nullable, so its values out of range cannot become missing: "
                    "declare it nullable=True, or choose another out_of_range"
                )
        fields = [parameter.field(name) for name, parameter in parameters.items()]
        self._set("parameters", MappingProxyType(parameters))
        self._set("tags", MappingProxyType(tags))
        self._set("schema", pa.schema([TIME_FIELD, *fields, *(tag.field(name) for name, tag in tags.items())]))
        self._set("_text", _json_of(self))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def of(cls, given: Any, **settings: Any) -> Contract:
        """A contract from what says as much.

        Args:
            given: a :class:`Contract`; a dict of names and dtypes or parameters (``TAG__`` names are tags); a
                ``pyarrow.Schema``, whose types stand for the dtypes that pandas makes of them (a dictionary of text for
                a category of any categories; a field that is not nullable for a parameter that is not); or rows to
                learn from: a DataFrame, or a ``pyarrow.RecordBatch`` in normal form. What is learned are the columns,
                all of them required, and their dtypes, with the categories that were there.
            settings: ``policy``, ``out_of_range`` and ``additional`` of the contract.

        Raises:
            SettingsError: it cannot be one.
            FrameError: the DataFrame cannot be carried exactly.
        """
        if isinstance(given, Contract):
            return cls(given.parameters, given.tags, **{**given._settings(), **settings}) if settings else given
        if isinstance(given, pd.DataFrame):
            given = FrameEncoder().encode(given)
        if isinstance(given, pa.RecordBatch):
            return cls(*_learned(given), **settings)
        if isinstance(given, pa.Schema):
            return cls(*_of_schema(given), **settings)
        if isinstance(given, Mapping):
            tags = {name[len(TAG) :]: _as_tag(of) for name, of in given.items() if str(name).startswith(TAG)}
            return cls({name: of for name, of in given.items() if not str(name).startswith(TAG)}, tags, **settings)
        raise SettingsError(
            f"a {type(given).__name__} is no contract: give a Contract, a dict of dtypes, a pyarrow.Schema or a "
            "DataFrame"
        )

    def differences(self, new: Contract) -> tuple[Difference, ...]:
        """In what a new contract differs from this one, and whether it is compatible; see `evolution`."""
        return differences(self, new)

    def to_json(self) -> str:
        """The contract as text: the same text for the same contract."""
        return self._text

    @classmethod
    def from_json(cls, text: str | bytes) -> Contract:
        """The contract of which it is the text.

        Raises:
            ContractError: it is the text of none, or of one of a later version of quixframes.
        """
        try:
            said = json.loads(text)
            if not isinstance(said, dict) or said.get("quixframes") != "contract":
                raise ValueError("it is no JSON of a contract")
            if said["version"] != VERSION:
                raise ContractError(
                    f"the contract is written in version {said['version']!r}, this quixframes knows {VERSION}: upgrade"
                )
            return cls(*_from_said(said), said["policy"], said["out_of_range"], said["additional"])
        except (ValueError, TypeError, KeyError, AttributeError, OSError, StopIteration, pa.ArrowException) as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(f"the text is no contract that this quixframes can read: {error}") from error

    @property
    def columns(self) -> dict[str, Parameter | Tag]:
        """What is declared, by the name of its column, in their order."""
        return {**self.parameters, **{TAG + name: tag for name, tag in self.tags.items()}}

    def _settings(self) -> dict[str, Any]:
        return {"policy": self.policy, "out_of_range": self.out_of_range, "additional": self.additional}

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Contract) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[Any, ...]:
        return Contract.from_json, (self._text,)


# --- names ------------------------------------------------------------------------------------------------------------


def _names(given: Any) -> list[Any]:
    if isinstance(given, str):
        raise SettingsError(f"tags={given!r} has to be a dict of tags, or a list of names")
    return list(given)


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise SettingsError(f"the name {name!r} has to be text")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise SettingsError(f"the name {name!r} has a lone surrogate, which no UTF-8 can carry")


def _parameter(name: Any, given: Any) -> Parameter:
    _check_name(name)
    if name.startswith(TAG):
        raise SettingsError(f"{name!r} is a tag: declare it among the tags, as {name[len(TAG) :]!r}")
    if name.lower() in TIME_NAMES:
        raise SettingsError(f"{name!r} is the time, which every frame has: leave it out")
    if isinstance(given, Tag):
        raise SettingsError(f"{name!r} is declared as a tag: declare it among the tags, or as a Parameter")
    try:
        return given if isinstance(given, Parameter) else Parameter(given)
    except SettingsError as error:
        raise SettingsError(f"parameter {name!r}: {error}") from error


def _tag(name: Any, given: Any) -> Tag:
    _check_name(name)
    if name.startswith(TAG):
        raise SettingsError(f"the tag {name!r} has to be declared by its name, {name[len(TAG) :]!r}")
    if not isinstance(given, Tag):
        raise SettingsError(f"tag {name!r} has to be declared as a Tag, not as {given!r}")
    return given


def _as_tag(given: Any) -> Tag:
    return given if isinstance(given, Tag) else Tag(dtype=given)


# --- from a schema, from rows -----------------------------------------------------------------------------------------


def _of_schema(schema: pa.Schema) -> tuple[dict[str, Any], dict[str, Tag]]:
    parameters: dict[str, Any] = {}
    tags: dict[str, Tag] = {}
    if len(set(schema.names)) != len(schema.names):
        raise SettingsError("two columns of the schema have the same name")
    for one in schema:
        if one.name.lower() in TIME_NAMES:
            if not (pa.types.is_timestamp(one.type) or one.type == pa.int64()):
                raise SettingsError(f"column {one.name!r} is the time by its name, and {one.type} by its type")
        elif one.name.startswith(TAG):
            if not is_text(one.type):
                raise SettingsError(f"column {one.name!r} is a tag, so it has to be text and not {one.type}")
            tags[one.name[len(TAG) :]] = Tag()
        else:
            parameters[one.name] = _of_field(one)
    return parameters, tags


def _of_field(one: pa.Field) -> Parameter:
    descriptor = (one.metadata or {}).get(KEY)
    nullable = None if one.nullable else False
    try:
        if descriptor is None or not _is_descriptor(one):
            return Parameter(natural_dtype(one.type), nullable=nullable)
        if descriptor.startswith(b"category"):
            raise SettingsError(
                "its categories are not in a schema: make the contract of a DataFrame, or with "
                "pandas.CategoricalDtype([...])"
            )
        empty = pa.RecordBatch.from_pylist([], pa.schema([TIME_FIELD, one]))
        return _learned(empty)[0][one.name]
    except SettingsError as error:
        raise SettingsError(f"column {one.name!r}: {error}") from error


def _is_descriptor(one: pa.Field) -> bool:
    """Whether the field is one of the normal form; metadata of another origin is none of our business."""
    try:
        check_supported(pa.schema([TIME_FIELD, one]))
    except FrameError:
        return False
    return True


def _learned(batch: pa.RecordBatch) -> tuple[dict[str, Parameter], dict[str, Tag]]:
    frame = FrameDecoder().decode(batch.slice(0, 0))
    parameters, tags = {}, {}
    for one, (name, column) in zip(list(batch.schema)[1:], frame.items(), strict=True):
        if one.name.startswith(TAG) and is_text(one.type):
            plain = isinstance(column.dtype, pd.StringDtype) or column.dtype == object
            tags[one.name[len(TAG) :]] = Tag(dtype=column.dtype if plain else "str")
        else:
            is_bytes = (one.metadata or {}).get(KEY) == b"object[bytes]"
            parameters[str(name)] = Parameter("bytes" if is_bytes else column.dtype)
    return parameters, tags


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json_of(contract: Contract) -> str:
    said = {
        "quixframes": "contract",
        "version": VERSION,
        **contract._settings(),
        "parameters": [
            {
                "name": name,
                "dtype": one.name,
                "unit": one.unit,
                "range": None if one.range is None else list(one.range),
                "required": one.required,
                "nullable": one.nullable,
                "open": one.open,
            }
            for name, one in contract.parameters.items()
        ],
        "tags": [{"name": name, "dtype": one.name, "required": one.required} for name, one in contract.tags.items()],
        "arrow": base64.b64encode(_without_rows(contract)).decode(),
    }
    return json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _without_rows(contract: Contract) -> bytes:
    arrays = [one.empty for one in contract.columns.values()]
    times = pa.array([], contract.schema.field(0).type)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, contract.schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays([times, *arrays], schema=contract.schema))
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _from_said(said: dict[str, Any]) -> tuple[dict[str, Parameter], dict[str, Tag]]:
    with pa.ipc.open_stream(base64.b64decode(said["arrow"], validate=True)) as stream:
        check_supported(stream.schema)
        batch = stream.read_next_batch()
    batch.validate(full=True)
    check_values(batch)
    dtypes, tags = _learned(batch)
    names = [one["name"] for one in said["parameters"]], [one["name"] for one in said["tags"]]
    if names != (list(dtypes), list(tags)):
        raise ValueError("its columns are not those of its Arrow schema")
    parameters = {
        one["name"]: Parameter(
            "category" if one["open"] else dtypes[one["name"]].dtype,
            unit=one["unit"],
            range=one["range"],
            required=one["required"],
            nullable=one["nullable"],
        )
        for one in said["parameters"]
    }
    return parameters, {one["name"]: Tag(one["required"], tags[one["name"]].dtype) for one in said["tags"]}
