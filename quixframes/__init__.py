"""quixframes: pandas DataFrames on Kafka."""

from importlib.metadata import version

from quixframes.batch import RowBatch, StreamReader
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
from quixframes.input import InputTopic
from quixframes.local import LocalKafka
from quixframes.output import OutputTopic
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
from quixframes.stream_writer import StreamWriter

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
