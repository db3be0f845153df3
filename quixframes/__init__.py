"""quixframes: pandas DataFrames on Kafka."""

from importlib.metadata import version

from quixframes.about import NamingRule, TopicAbout
from quixframes.batch import RowBatch, StreamReader
from quixframes.client import StreamingClient
from quixframes.codecs import Codec, Decoded, Encoded, RecordError
from quixframes.contracts import Contract, Parameter, Tag
from quixframes.csv_lines import CsvLines
from quixframes.errors import (
    AccessDeniedError,
    AuthenticationError,
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    CommitError,
    ContractBreachError,
    ContractError,
    DamagedMessageError,
    DeadLetterError,
    DeliveryError,
    FencedError,
    ForeignMessageError,
    FrameError,
    FutureVersionError,
    GroupMovedOnError,
    LocalKafkaError,
    MessageTooLargeError,
    OffsetGoneError,
    QuixframesError,
    SequenceError,
    SettingsError,
    StreamExistsError,
    StreamNotFoundError,
    TlsError,
    TopicNotFoundError,
    TransactionError,
    WireError,
)
from quixframes.formats import BytesAsIs
from quixframes.growth import Growth
from quixframes.input import InputTopic
from quixframes.json_rows import JsonRows
from quixframes.kafka import Partition
from quixframes.local import LocalKafka
from quixframes.output import OutputTopic
from quixframes.pipeline import Pipeline
from quixframes.record_columns import RecordColumns
from quixframes.replay import Replay
from quixframes.retention_gap import RetentionGap
from quixframes.runner import Summary, run
from quixframes.security import Secret, Security
from quixframes.sequence import FaultKind, SequenceFault
from quixframes.settings import (
    AutoOffsetReset,
    BufferSettings,
    CommitMode,
    CommitSettings,
    FaultSettings,
    Hooks,
    ReaderSettings,
    Retry,
    WriterSettings,
)
from quixframes.story import EventDefinition, EventLevel, ParameterDefinition, Story, StreamProperties
from quixframes.stream_writer import StreamWriter
from quixframes.topic_plan import Applied
from quixframes.topic_report import Balance, TopicReport
from quixframes.topic_spec import TopicSpec
from quixframes.wire import StreamEndType

__version__ = version("quixframes")

__all__ = [
    "AccessDeniedError",
    "Applied",
    "AuthenticationError",
    "AutoOffsetReset",
    "Balance",
    "BrokerError",
    "BrokerUnavailableError",
    "BufferSettings",
    "BytesAsIs",
    "ClosedError",
    "Codec",
    "CommitError",
    "CommitMode",
    "CommitSettings",
    "Contract",
    "ContractBreachError",
    "ContractError",
    "CsvLines",
    "DamagedMessageError",
    "DeadLetterError",
    "Decoded",
    "DeliveryError",
    "Encoded",
    "EventDefinition",
    "EventLevel",
    "FaultKind",
    "FaultSettings",
    "FencedError",
    "ForeignMessageError",
    "FrameError",
    "FutureVersionError",
    "GroupMovedOnError",
    "Growth",
    "Hooks",
    "InputTopic",
    "JsonRows",
    "LocalKafka",
    "LocalKafkaError",
    "MessageTooLargeError",
    "NamingRule",
    "OffsetGoneError",
    "OutputTopic",
    "Parameter",
    "ParameterDefinition",
    "Partition",
    "Pipeline",
    "QuixframesError",
    "ReaderSettings",
    "RecordColumns",
    "RecordError",
    "Replay",
    "RetentionGap",
    "Retry",
    "RowBatch",
    "Secret",
    "Security",
    "SequenceError",
    "SequenceFault",
    "SettingsError",
    "Story",
    "StreamEndType",
    "StreamExistsError",
    "StreamNotFoundError",
    "StreamProperties",
    "StreamReader",
    "StreamWriter",
    "StreamingClient",
    "Summary",
    "Tag",
    "TlsError",
    "TopicAbout",
    "TopicNotFoundError",
    "TopicReport",
    "TopicSpec",
    "TransactionError",
    "WireError",
    "WriterSettings",
    "__version__",
    "run",
]
