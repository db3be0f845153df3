"""quixframes: pandas DataFrames on Kafka."""

from importlib.metadata import version

from quixframes.client import StreamingClient
from quixframes.errors import (
    AccessDeniedError,
    AuthenticationError,
    BrokerError,
    BrokerUnavailableError,
    ClosedError,
    CommitError,
    DamagedMessageError,
    DeliveryError,
    ForeignMessageError,
    FrameError,
    FutureVersionError,
    GroupMovedOnError,
    LocalKafkaError,
    MessageTooLargeError,
    OffsetGoneError,
    QuixframesError,
    SettingsError,
    StreamExistsError,
    StreamNotFoundError,
    TlsError,
    TopicNotFoundError,
    WireError,
)
from quixframes.input import InputTopic, RowBatch, StreamReader
from quixframes.local import LocalKafka
from quixframes.output import OutputTopic, StreamWriter
from quixframes.replay import Replay
from quixframes.settings import (
    AutoOffsetReset,
    BufferSettings,
    CommitMode,
    CommitSettings,
    Hooks,
    ReaderSettings,
    WriterSettings,
)

__version__ = version("quixframes")

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "AutoOffsetReset",
    "BrokerError",
    "BrokerUnavailableError",
    "BufferSettings",
    "ClosedError",
    "CommitError",
    "CommitMode",
    "CommitSettings",
    "DamagedMessageError",
    "DeliveryError",
    "ForeignMessageError",
    "FrameError",
    "FutureVersionError",
    "GroupMovedOnError",
    "Hooks",
    "InputTopic",
    "LocalKafka",
    "LocalKafkaError",
    "MessageTooLargeError",
    "OffsetGoneError",
    "OutputTopic",
    "QuixframesError",
    "ReaderSettings",
    "Replay",
    "RowBatch",
    "SettingsError",
    "StreamExistsError",
    "StreamNotFoundError",
    "StreamReader",
    "StreamWriter",
    "StreamingClient",
    "TlsError",
    "TopicNotFoundError",
    "WireError",
    "WriterSettings",
    "__version__",
]
