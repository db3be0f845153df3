"""The client: one place to open topics from, which closes everything that it opened."""

from __future__ import annotations

import atexit
import contextlib
import html
import logging
import os
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import pandas as pd
import pyarrow as pa

from quixframes.access import Users
from quixframes.closing import Closing
from quixframes.codecs import Codec
from quixframes.contract_check import ContractCheck
from quixframes.contract_store import ContractStore
from quixframes.contracts import Contract
from quixframes.dead_letters import DeadLetters, dead_letter
from quixframes.errors import ClosedError, QuixframesError, SettingsError, TopicNotFoundError
from quixframes.grants import transactional_ids
from quixframes.growth import Growth, grow
from quixframes.input import InputTopic
from quixframes.kafka import Admin, Consumer, Producer, TopicDescription, TransactionalProducer, Transport
from quixframes.letter_box import letters_frame, messages_of, placed, read_letters, renumbered, send_messages
from quixframes.load import LoadSummary, opened_loading
from quixframes.load_source import GivenHistory, History
from quixframes.logs import Place
from quixframes.message_reader import MessageReader
from quixframes.metrics import Book, to_frame
from quixframes.moments import moment
from quixframes.output import Outputs, OutputTopic
from quixframes.pace import Pace
from quixframes.pipeline import Look, Pipeline
from quixframes.placement_store import PlacementStore, Placer
from quixframes.poller import Poller
from quixframes.profiles import environment_profile, named_profile
from quixframes.record_columns import RecordColumns
from quixframes.replay import Replay
from quixframes.replay_asked import Asked, GivenEdge, GivenStreams, GivenTags, GivenWhere
from quixframes.replay_read import Source
from quixframes.reset import reset
from quixframes.security import Security
from quixframes.settings import (
    AutoOffsetReset,
    BufferSettings,
    CommitMode,
    CommitSettings,
    Connection,
    Duration,
    FaultSettings,
    Hooks,
    ReaderSettings,
    WriterSettings,
    seconds,
    whole_number,
)
from quixframes.signals import install_sigterm, remove_sigterm
from quixframes.subscription import GivenTopics, Start, Subscription
from quixframes.tail import tail
from quixframes.topic_spec import TopicSpec
from quixframes.topics import Topics

if TYPE_CHECKING:
    from quixframes.local import LocalKafka

__all__ = ["StreamingClient"]

log = logging.getLogger(__name__)

GivenContract: TypeAlias = Contract | Mapping[str, Any] | pa.Schema | pd.DataFrame | Literal["topic"] | None


class StreamingClient(Closing):
    """Opens topics of a cluster to write to, to read from, and to replay.

    Args:
        address: a broker as "host:port", or several with commas between. Default: the environment variable
            ``QUIXFRAMES_BROKER``; where there is none, a Kafka on this machine, as :meth:`local` finds or starts it.
        writer: how it writes: delivery time-out, memory, compression. Default: ``WriterSettings()``.
        client_id: the name under which the cluster's logs and quotas know this client.
        connect_timeout: how long opening something may take before it fails.
        security: TLS and login, as in ``Security.scram("alice", password, ca="ca.pem")``. Default: neither. See
            :meth:`from_env` and :meth:`from_profile`, which keep passwords out of programs.
        transport: the Kafka client underneath: "kafka-python" or "confluent", which needs the extra of that name.
            Default: the environment variable ``QUIXFRAMES_TRANSPORT``, else "kafka-python".

    Nothing is connected before it is needed. While it is open, SIGTERM raises ``SystemExit`` in the main thread, unless
    the program has a handler of its own. Leaving the ``with`` block, ``close()`` and the end of the program close
    what is open: readers first, then writers.

    >>> with StreamingClient("localhost:9092") as client:                                      # doctest: +SKIP
    ...     with client.open_output_topic("engine") as topic:
    ...         topic.write(frame, stream="car-44")
    """

    def __init__(
        self,
        address: str | list[str] | None = None,
        *,
        writer: WriterSettings | None = None,
        client_id: str = "quixframes",
        connect_timeout: Duration = "8s",
        security: Security | None = None,
        transport: Literal["kafka-python", "confluent"] | None = None,
    ) -> None:
        self._transport = _transport(transport or os.environ.get("QUIXFRAMES_TRANSPORT") or "kafka-python")
        self._outputs = Outputs(writer or WriterSettings(), self._get_producer, self._forget_output)
        self._book = Book(self._outputs)
        seconds(connect_timeout, name="connect_timeout")
        if address is None:
            found = environment_profile(os.environ)
            address = found.broker
            if address is not None and security is None:
                security = found.security
        self._kafka: LocalKafka | None = None
        if address is None:
            from quixframes.local import LocalKafka

            self._kafka = LocalKafka().start()
            address = self._kafka.address
            if security is None and self._kafka.secured:
                security = self._kafka.security()
        self.connection = Connection(Connection.of(address).brokers, client_id, connect_timeout, security)
        self._lock = threading.RLock()
        self._producer: Producer | None = None
        self._admin: Admin | None = None
        self._inputs: list[InputTopic] = []
        self._closed = False
        self._contracts = ContractStore(self._get_admin, self._get_producer, self._lone_consumer)
        self._placements = PlacementStore(self._get_admin, self._get_producer, self._lone_consumer)
        replay = partial(self.replay, contract=None, progress=False)
        self.topics = Topics(self._get_admin, self._lone_consumer, self._contracts, replay, self._grow)
        self.users = Users(self._get_admin)
        # A client lives until it is closed, at the latest when the program ends: so that its group learns of it, and
        # its rows are sent.
        atexit.register(self._close_at_exit)
        install_sigterm()

    @classmethod
    def local(cls, directory: str | os.PathLike[str] | None = None, **settings: Any) -> Self:
        """A client of a real Kafka on this machine, without Docker: found running, or started from packages.

        A broker that this call started ends with the client; one that ran already is left as it is.

        Args:
            directory: the folder of its data and log; default: this user's shared one.
            settings: the arguments of :class:`StreamingClient`, but for ``address``.

        Raises:
            LocalKafkaError: it could not be started; the text says why, and what else there is.
        """
        from quixframes.local import LocalKafka

        kafka = LocalKafka(directory).start()
        if kafka.secured:
            settings.setdefault("security", kafka.security())
        try:
            client = cls(kafka.address, **settings)
        except BaseException:
            kafka.stop()
            raise
        client._kafka = kafka
        return client

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """A client of the cluster that the environment names: ``QUIXFRAMES_BROKER``; for TLS ``QUIXFRAMES_CA``,
        ``QUIXFRAMES_CERTIFICATE`` and ``QUIXFRAMES_KEY``, or ``QUIXFRAMES_TLS=true``; for a login ``QUIXFRAMES_USER``,
        ``QUIXFRAMES_PASSWORD`` (or ``QUIXFRAMES_PASSWORD_FILE``) and ``QUIXFRAMES_SASL_MECHANISM``.

        Args:
            settings: the arguments of :class:`StreamingClient`, but for ``address`` and ``security``.

        Raises:
            SettingsError: no broker is named, or something that does not go together.
        """
        found = environment_profile(os.environ)
        if found.broker is None:
            raise SettingsError("the environment names no broker: set QUIXFRAMES_BROKER to 'host:port'")
        return cls(found.broker, security=found.security, **settings)

    @classmethod
    def from_profile(cls, name: str, **settings: Any) -> Self:
        """A client of the cluster that a table of the configuration file describes.

        The file is ``QUIXFRAMES_CONFIG``, or ``~/.config/quixframes/config.toml``. Others may not read it if it has
        passwords in it; ``password_env`` and ``password_file`` say where one is instead::

            [production]
            broker = "kafka-1.example.org:9093, kafka-2.example.org:9093"
            ca = "ca.pem"                       # relative to this file
            mechanism = "SCRAM-SHA-512"
            user = "pace-model"
            password_env = "PACE_MODEL_PASSWORD"

        Args:
            name: of the table.
            settings: the arguments of :class:`StreamingClient`, but for ``address`` and ``security``.

        Raises:
            SettingsError: no such file or table, a setting that cannot be, or a password that others may read.
        """
        found = named_profile(name, os.environ)
        return cls(found.broker, security=found.security, **settings)

    # Topics

    def open_output_topic(
        self,
        topic: str,
        *,
        create: bool | TopicSpec = False,
        buffer: BufferSettings | None = None,
        codec: Codec | None = None,
        contract: GivenContract = "topic",
        dead_letters: str | None = None,
    ) -> OutputTopic:
        """Open a topic to write to.

        Args:
            topic: its name. It has to exist: ``client.topics.create(name, partitions=3)`` makes one.
            create: whether to make it where there is none: True, with one partition and the cluster's defaults, or the
                :class:`~quixframes.TopicSpec` to make it by. One that exists is left as it is. Default False.
            buffer: the rules of its streams' buffers. Default: 10,000 rows or 1 s, whichever first.
            codec: how rows are written for others: ``JsonRows()``, ``CsvLines()``, ``BytesAsIs()``, or one of your own.
                It carries rows, and nothing else that a stream may say. Default: quixframes' own wire format.
            contract: what rows have to be like. "topic" (default): what ``client.topics.set_contract`` has kept for the
                topic, if anything. Or a :class:`~quixframes.Contract` or anything that ``Contract.of`` takes; or None,
                for no contract.
            dead_letters: the topic to which rows go that do not keep the contract, where that says so. It has to exist.

        Raises:
            TopicNotFoundError: there is no such topic, or no such dead-letter topic.
            SettingsError: the contract has dead letters, and ``dead_letters`` names no topic for them.
            BrokerUnavailableError: nobody answers at the address.
        """
        self.topics._ensure([topic], create)
        description = self._get_admin().describe(topic, to="write")
        self._get_producer()  # now, since the first thing written may be an end, told while the client closes
        check = self._contract_check(topic, contract)
        if check is not None and check.sends_dead_letters and dead_letters is None:
            raise SettingsError(
                f"the contract of topic {topic!r} sends rows to a dead-letter topic: open it with "
                "dead_letters='a-topic' that exists"
            )
        letter = None
        if dead_letters is not None:
            letter = partial(dead_letter, topic=self._dead_letter_topic(dead_letters, [topic]))
        opened = OutputTopic(
            description,
            Placer(description, self._placements),
            self._outputs,
            buffer or BufferSettings(),
            codec,
            contract=check,
            letter=letter,
        )
        self._book.add(opened)
        return opened

    def open_input_topic(
        self,
        topic: GivenTopics,
        consumer_group: str | None = "Default",
        commit_settings: CommitSettings | CommitMode = CommitMode.Automatic,
        auto_offset_reset: AutoOffsetReset | str = AutoOffsetReset.Earliest,
        start: object = None,
        *,
        create: bool | TopicSpec = False,
        exactly_once: bool = False,
        reader: ReaderSettings | None = None,
        on_bad_message: Literal["raise", "skip"] = "raise",
        dead_letters: str | None = None,
        codec: Codec | None = None,
        record_columns: RecordColumns | None = None,
        contract: GivenContract = "topic",
        faults: FaultSettings | None = None,
        hooks: Hooks | None = None,
    ) -> InputTopic:
        """Open a topic to read from, and begin to read ahead.

        Args:
            topic: its name; several names; or a pattern, as in ``re.compile("engine-.*")``, which a topic's whole name
                has to match: topics that are made later are found within some 10 s.
            consumer_group: instances that open the topic with the same group share its partitions, and go on where the
                group has committed. None: reads all partitions, in no group, and cannot commit.
            commit_settings: ``CommitMode.Manual``, ``CommitMode.Automatic`` (default: every 5 s or 5,000 rows; with
                ``exactly_once`` every 200 ms), or a :class:`~quixframes.CommitSettings`.
            auto_offset_reset: where a group begins that has never committed: "earliest" (default) or "latest".
            start: instead of that, a moment for a group that has never committed (or for none): anything that
                ``pandas.Timestamp`` takes. It is compared with the time at which messages arrived in Kafka, not with
                event time.
            create: as in :meth:`open_output_topic`. A pattern names no topic to make.
            exactly_once: whether what this client writes and what this topic commits are one transaction, so that no
                row counts twice downstream. All outputs of the client take part. Where a batch fails, or was not
                committed when its partition went, what was written for it does not count, and its rows come again.
                Those who read the outputs see them once they are committed. Default False: at least once.
            reader: limits, time-outs, and this instance's place in its group.
            on_bad_message: "raise" (default) a message that cannot be read, in the loop; or "skip" it, which is logged,
                and counted in ``topic.bad_messages``.
            dead_letters: a topic of the same cluster, which has to exist: a message that cannot be read goes there
                instead, untouched, with the reason in its headers, and is counted in ``topic.dead_lettered``. See
                :meth:`dead_letters` and :meth:`send_back`.
            codec: how messages are read that quixframes did not write: ``JsonRows()``, ``CsvLines()``, ``BytesAsIs()``,
                or one of your own. Default: they are bad messages.
            record_columns: what Kafka says of each record (key, broker time, headers) that its rows get as columns.
            contract: as in :meth:`open_output_topic`. A message whose rows do not keep it is a bad message as a whole.
            faults: what to do where messages of a stream are missing, repeated or out of order. Default: log it. They
                are counted in ``topic.sequence_faults``.
            hooks: functions that are told of partitions that come and go, of commits, and of streams that are idle.

        Raises:
            TopicNotFoundError: there is no such topic, or no such dead-letter topic.
            AccessDeniedError: it may not be read, or the group not be joined.
            BrokerUnavailableError: nobody answers at the address.
        """
        if consumer_group == "":
            raise SettingsError("consumer_group='' is no name: give one, or None to read without a group")
        if on_bad_message not in ("raise", "skip"):
            raise SettingsError(f"on_bad_message={on_bad_message!r} has to be 'raise' or 'skip'")
        if not isinstance(exactly_once, bool):
            raise SettingsError(f"exactly_once={exactly_once!r} has to be True or False")
        subscription = Subscription.of(topic)
        commit = CommitSettings.of(commit_settings, exactly_once=exactly_once)
        begin = Start(
            AutoOffsetReset.of(auto_offset_reset),
            None if start is None else int(moment(start, "start").timestamp() * 1000),
        )
        reader = reader or ReaderSettings()
        admin = self._get_admin()
        self.topics._ensure(subscription.names, create)
        topics = subscription.topics(admin)
        for name in topics:
            admin.describe(name, to="read")
        letters = None
        if dead_letters is not None:
            letters = self._open_dead_letters(dead_letters, topics, consumer_group, on_bad_message)
        contracts: dict[str, ContractCheck] = {}
        found = partial(self._find_contracts, contracts, contract)
        found(topics)
        plain = len(subscription.names) == 1 and not contracts
        transactions = self._begin_transactions(subscription, consumer_group, reader) if exactly_once else None
        try:
            poller = Poller(
                self._transport.consumer(self.connection, reader, group=consumer_group),
                subscription,
                topics,
                group=consumer_group is not None,
                admin=admin,
                start=begin,
                settings=reader,
                hooks=hooks or Hooks(),
                found=found,
            )
        except BaseException:
            if transactions is not None:
                self._outputs.end_transactions(transactions)
                transactions.close(1.0)
            raise
        opened = InputTopic(
            consumer_group,
            poller,
            admin,
            commit=commit,
            reader=reader,
            on_bad_message=on_bad_message,
            dead_letters=letters,
            messages=MessageReader(codec, record_columns, None if plain else contracts),
            faults=faults or FaultSettings(),
            on_idle=None if hooks is None else hooks.idle,
            outputs=self._outputs,
            transactions=transactions,
            on_close=self._forget,
        )
        with self._lock:
            self._inputs.append(opened)
        self._book.add(opened)
        return opened

    def replay(
        self,
        topic: str | Collection[str],
        streams: GivenStreams = None,
        columns: Collection[str] | None = None,
        *,
        start: GivenEdge = None,
        end: GivenEdge = None,
        by: Literal["event", "arrival"] = "event",
        lateness: Duration | None = None,
        group: str | None = None,
        tags: GivenTags = None,
        where: GivenWhere = None,
        order: Literal["stream", "time"] = "stream",
        speed: float | None = None,
        codec: Codec | None = None,
        record_columns: RecordColumns | None = None,
        contract: GivenContract = "topic",
        progress: bool = True,
    ) -> Replay:
        """What topics retain, up to where they end when the reading starts; no group is joined, nothing is committed.

        >>> client.replay("engine", start="-1 h", streams="car-*", columns=["speed"]).to_frame()  # doctest: +SKIP

        Args:
            topic: its name, or several.
            streams: IDs of the streams to read, a pattern as "car-*", or a function that is given each stream (a
                :class:`~quixframes.batch.StreamReader`, with ``.stream_id`` and ``.properties``) and says whether it is
                wanted. Default: all.
            columns: parameters to read; those of other names are never converted. Default: all.
            start, end: the range, without its end: moments as pandas understands them ("2026-11-15", in UTC where no
                zone is said), times before now ("-10min"), or offsets by partition ({0: 1500}; of several topics
                {"engine": {0: 1500}}). Default: all that is retained.
            by: "event" (default): rows whose own time is in the range, to the nanosecond, also where their clock is
                wrong; "arrival": messages that the cluster received in it, found by Kafka's time index.
            lateness: with ``by="event"``: how far the time of a row and its arrival may lie apart, either way. With it,
                less is fetched: only what arrived so near to the range; rows farther apart are then left out. Default
                None: everything retained is looked at, by its headers.
            group: a consumer group: start where it has committed, in place of ``start``.
            tags: by tag, the value or values that rows have to have; None for a missing tag.
            where: rows for which it is true: an expression of :mod:`pyarrow.compute`, as ``pc.field("speed") > 100``
                (it may name any column), or a function from a DataFrame to a mask.
            order: "stream" (default), or "time": streams are merged by event time. Batches are then in the order of
                their messages' first rows, as far as 64 MB of messages in hand can tell.
            speed: batches come when the times of their last rows say: 1, as they were; 60, a minute each second.
                Default None: as fast as they can be read. Best with ``order="time"``.
            codec: as in :meth:`open_input_topic`.
            record_columns: as in :meth:`open_input_topic`.
            contract: as in :meth:`open_output_topic`. Where it has dead letters, messages that do not keep it are left
                out, which is logged.
            progress: whether a bar shows how far it is.

        Raises:
            TopicNotFoundError: there is no such topic.
            SettingsError: an argument cannot be, or some do not go together.
        """
        asked = Asked.of(
            topic, start=start, end=end, by=by, lateness=lateness, group=group, streams=streams, columns=columns,
            tags=tags, where=where, now=pd.Timestamp.now("UTC"),
        )  # fmt: skip
        if order not in ("stream", "time"):
            raise SettingsError(f"order={order!r} has to be 'stream' or 'time'")
        admin = self._get_admin()
        contracts: dict[str, ContractCheck] = {}
        for name in asked.topics:
            admin.describe(name, to="read")
            if (check := self._contract_check(name, contract)) is not None:
                contracts[name] = check
        source = Source(admin, self._lone_consumer, codec, record_columns, contracts, progress)
        return Replay(asked, source, order, None if speed is None else Pace(speed).speed)

    def tail(
        self,
        topic: str,
        span: Duration | None = None,
        *,
        rows: int | None = None,
        streams: GivenStreams = None,
        columns: Collection[str] | None = None,
        **more: Any,
    ) -> pd.DataFrame:
        """The newest rows of a topic as a DataFrame, ordered by time; the column ``stream`` says whose each is.

        >>> client.tail("engine", "10min", columns=["speed"])                                   # doctest: +SKIP

        Args:
            topic: its name.
            span: those that the cluster received in this time before now.
            rows: so many at most: the last ones by their times of those that were received last. Default 1,000 where no
                ``span`` is given, else all of it.
            streams, columns: as in :meth:`replay`.
            more: further arguments of :meth:`replay`: ``tags``, ``where``, ``codec``, ...

        Raises:
            TopicNotFoundError: there is no such topic.
            FrameError: as :meth:`Replay.to_frame <quixframes.replay.Replay.to_frame>`.
        """
        more = {"streams": streams, "columns": columns, "progress": False, **more}
        return tail(topic, span, rows, self._get_admin(), self.replay, **more)

    def load(
        self,
        history: GivenHistory,
        topic: str,
        *,
        stream: str | None = None,
        by: str | None = None,
        time: str | None = None,
        name: str | None = None,
        again: bool = False,
        pace: float | None = None,
        rows: int = 10_000,
        create: bool | TopicSpec = False,
        contract: GivenContract = "topic",
        progress: bool = True,
        **options: Any,
    ) -> LoadSummary:
        """Write existing history into a topic, each row once, in order for each stream.

        Rows take effect in Kafka transactions, together with how far it is: so a load of files that an error, an
        interrupt or a crash broke off is gone on with by the same call, and a second load of the same files is refused.

        >>> client.load("laps/*.parquet", "engine", by="car")                                   # doctest: +SKIP
        >>> client.load("weather.csv.gz", "weather", stream="JFK", time="valid", pace=60)       # doctest: +SKIP

        Args:
            history: Parquet or CSV files (a path, a pattern, a folder or a list), a DataFrame, or an iterable of
                DataFrames. Files are taken in the order of their names.
            topic: where to.
            stream, by: the stream that all rows belong to, or the column that names it, as in
                :meth:`OutputTopic.write <quixframes.output.OutputTopic.write>`.
            time: the column with the time; default: the index, or the column named time, timestamp or datetime. Text
                has to be as ISO 8601 has it ("2026-11-15 14:00:00.5"), and is UTC where it says no zone.
            name: under which it is known how far it is. Default, of files: the topic's name and theirs. Frames need
                one to be gone on with, and then have to be the same ones in the same order.
            again: whether to begin anew, also where all of it was loaded.
            pace: None (default), as fast as it goes; 1, as their times have it, 60, a minute each second.
            rows: how many make a message. A thousand or more are fast.
            create, contract: as in :meth:`open_output_topic`. Where a row does not keep the contract, it ends there.
            progress: whether a bar shows how far it is.
            options: go to :func:`pandas.read_csv`, as ``dtype={"gear": "Int64"}``.

        The cluster remembers how far a load was for as long as it does for a consumer group of that name, which nobody
        may be in: by default, for 7 days.

        Raises:
            SettingsError: all of it is loaded already, the files are others than those begun with, or there is none.
            FrameError: rows that have no time, or cannot be written. What was written before them is loaded.
            FencedError: another load of this name has taken over.
        """
        whole_number(rows, "rows", least=1)
        kept = None if pace is None else Pace(pace)
        if (stream is None) == (by is None):
            raise SettingsError("give stream= for all rows, or by= with the column that names it")
        taken = History.of(history, options)
        if name is None:
            name = f"load {topic} {taken.mark}" if taken.mark else f"load {uuid.uuid4().hex}"
        self.topics._ensure([topic], create)
        self._get_admin().describe(topic, to="read")  # as Kafka wants of whoever commits an offset of it
        description, settings = self._get_admin().describe(topic, to="write"), self._outputs.settings
        check = self._contract_check(topic, contract)
        with opened_loading(
            taken,
            partial(OutputTopic, description, Placer(description, self._placements), contract=check),
            settings,
            lambda: self._transport.transactional(
                self.connection, settings, transactional_id=f"{transactional_ids(name)}load"
            ),
            lambda: self._transport.consumer(self.connection, ReaderSettings(), group=name),
            kept,
        ) as loading:
            return loading.run(time, rows, stream, by, again=again, progress=progress)

    # Groups

    def reset_group(self, group: str, topic: str, to: Any, *, dry_run: bool = False) -> pd.DataFrame:
        """Set a consumer group to another place of a topic, so that its model reads from there when it is started next.

        >>> client.reset_group("pace-model", "engine", "-7 days", dry_run=True)                 # doctest: +SKIP

        Args:
            group: the consumer group. No instance may be in it.
            topic: the topic.
            to: "earliest", "latest", a moment as pandas understands it ("2026-11-15", in UTC where no zone is said), a
                time before now ("-7 days"), or offsets by partition ({0: 1500}; others stay). Of a moment: the first
                messages that the cluster received then or later.
            dry_run: whether to tell what it would do, and do nothing. Default False.

        Returns:
            A row for each partition: ``committed`` before (missing where nothing was), ``to``, and how many offsets are
            read ``again`` or ``passed_over`` by it.

        Raises:
            SettingsError: an instance is in the group, or there is no such place.
            TopicNotFoundError: there is no such topic.
        """
        return reset(
            group,
            topic,
            to,
            self._get_admin(),
            lambda: self._transport.consumer(self.connection, ReaderSettings(), group=group),
            pd.Timestamp.now("UTC"),
            dry_run=dry_run,
        )

    # Dead letters

    def dead_letters(self, topic: str, *, limit: int | None = None) -> pd.DataFrame:
        """The messages in a dead-letter topic, one a row, the oldest first; no group is joined, nothing is committed.

        The index ``time`` is when each came there (UTC). Columns: ``topic``, ``partition`` and ``offset`` are where it
        came from; ``exception``, ``message`` and ``stacktrace`` are why; ``key``, ``value`` (bytes or None) and
        ``headers`` (a list of pairs) are the message itself; ``dead_partition`` and ``dead_offset`` are where it is.

        Args:
            topic: the dead-letter topic.
            limit: the most messages: the newest ones. Default: all of them.

        Raises:
            TopicNotFoundError: there is no such topic.
            BrokerUnavailableError: the cluster was out of reach for 30 s.
        """
        if limit is not None:
            whole_number(limit, "limit", least=1)
        admin = self._get_admin()
        admin.describe(topic)
        return letters_frame(read_letters(topic, admin, self._lone_consumer(), limit))

    def send_back(self, letters: pd.DataFrame, *, to: str | None = None) -> int:
        """Send dead letters back to where they came from, and wait until the cluster has acknowledged them.

        Key, value and headers are those of the frame; the reason's headers are gone, and quixframes' own messages get
        new numbers in their streams. They stay in the dead-letter topic as well, and nothing remembers that they were
        sent: a second call with the same rows sends them again.

        Args:
            letters: rows of :meth:`dead_letters`. What is changed in them is sent as it is then.
            to: another topic to send all of them to.

        Returns:
            How many were sent.

        Raises:
            FrameError: a row is no dead letter. Nothing was sent.
            TopicNotFoundError: a topic is not there any more. Nothing was sent.
            DeadLetterError: some were not acknowledged; its ``left`` are their rows.
        """
        messages = messages_of(letters, to)
        admin = self._get_admin()
        counts = {name: admin.describe(name).partitions for name in {message.topic for message in messages}}
        timeout = seconds(self._outputs.settings.delivery_timeout) + 5
        messages = renumbered(placed(messages, counts))
        send_messages(letters, messages, self._get_producer(), self._outputs.in_flight, timeout)
        return len(messages)

    # Governance

    def pipeline(
        self, topics: str | Collection[str] | None = None, *, window: Duration = "1 min", newest: int = 20
    ) -> Pipeline:
        """The topics, the models between them and the groups that read them, as a graph: with rates and lag, and what
        in it breaks the rules. See :meth:`Topics.set_about <quixframes.topics.Topics.set_about>`.

        Args:
            topics: the names of those to look at. Default: all that may be seen. Each costs some ten requests; one
                with a contract also a look at its newest messages.
            window: the time, by the clock of this machine and those of the writers, over which rates are.
            newest: how many messages of each partition are held against the topic's contract. Default 20; 0: none.

        Raises:
            TopicNotFoundError: one that was named is not there.
        """
        return Look(self.topics, self._get_admin, self._lone_consumer, self._kept_check).pipeline(
            topics, window, newest
        )

    # Metrics

    def metrics(self) -> pd.DataFrame:
        """What this client has done and holds now: one row a number.

        Columns: ``metric`` (its name, as in ``docs/metrics.md``); ``topic``, ``group`` and ``partition`` say what it is
        the number of, missing where that is no matter of one; ``value``; ``kind`` ("counter" or "gauge"); ``unit``.
        Counters keep what topics had counted that were closed, also after the client was. Where a reader reads several
        topics, its numbers are under all of their names, and those of partitions under each topic's own.

        For Prometheus and OpenTelemetry see ``quixframes.metrics_prometheus`` and ``quixframes.metrics_otel``.

        >>> client.metrics().set_index(["metric", "topic"])["value"]                           # doctest: +SKIP
        """
        return to_frame(self._book.metrics())

    # Ends

    def flush(self, timeout: Duration | None = None) -> None:
        """Wait until the cluster has acknowledged everything written so far, to any topic; see
        :meth:`OutputTopic.flush`."""
        self._check_open()
        patience = seconds(self._outputs.settings.delivery_timeout) + 5
        self._outputs.flush(patience if timeout is None else seconds(timeout, name="timeout"))

    def close(self, timeout: Duration = "30s") -> None:
        """Close every topic, the connections, and the Kafka that was started for this client, within ``timeout``.

        Readers first, so that what they commit is delivered before. Raises what went wrong once all is closed.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            topics: list[InputTopic | OutputTopic] = [*self._inputs, *self._outputs.topics]
        atexit.unregister(self._close_at_exit)
        remove_sigterm()
        deadline = time.monotonic() + seconds(timeout, name="timeout")

        def left() -> float:
            return max(0.1, deadline - time.monotonic())

        # The stack closes all of them, whatever one of them raises; the last to be entered comes first.
        with contextlib.ExitStack() as stack:
            if self._kafka is not None:
                stack.callback(self._kafka.stop)
            if self._admin is not None:
                stack.callback(lambda admin: admin.close(left()), self._admin)
            if self._producer is not None:
                stack.callback(lambda producer: producer.close(left()), self._producer)
            for topic in reversed(topics):
                stack.callback(lambda topic: topic.close(left()), topic)

    def _leave(self, exc: BaseException | None) -> None:
        if isinstance(exc, Exception):
            for topic in self._outputs.topics:
                topic._abort_streams()
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._outputs.topics)} outputs and {len(self._inputs)} inputs open"
        return f"<StreamingClient of {', '.join(self.connection.brokers)}: {state}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>"

    # Inside

    def _get_admin(self) -> Admin:
        with self._lock:
            self._check_open()
            if self._admin is None:
                self._admin = self._transport.admin(self.connection)
            return self._admin

    def _begin_transactions(
        self, subscription: Subscription, group: str | None, reader: ReaderSettings
    ) -> TransactionalProducer:
        if group is None:
            raise SettingsError("exactly_once=True needs a consumer group: its offsets are committed with the results")
        if self._outputs.in_transactions:
            raise SettingsError(
                f"exactly_once=True for {subscription}: this client reads another topic exactly once already, and all "
                "that it writes belongs to that one's transactions. Open both as one input, or use another client"
            )
        # The ID begins with the group's name, so that one rule of access covers all of its instances. With an instance
        # ID it is the same after a restart, which ends at once what the run before left open.
        name = f"{transactional_ids(group)}{reader.instance_id or uuid.uuid4().hex}"
        producer = self._transport.transactional(self.connection, self._outputs.settings, transactional_id=name)
        try:
            self._outputs.begin_transactions(producer)
        except BaseException:
            producer.close(1.0)
            raise
        return producer

    def _find_contracts(
        self, contracts: dict[str, ContractCheck], given: GivenContract, topics: Collection[str]
    ) -> None:
        """Keep a contract for each topic that has one and is not known yet."""
        for topic in set(topics) - contracts.keys():
            check = self._contract_check(topic, given)
            if check is not None:
                contracts[topic] = check

    def _open_dead_letters(
        self, name: str, topics: Collection[str], group: str | None, on_bad_message: str
    ) -> DeadLetters:
        if on_bad_message == "skip":
            raise SettingsError(f"on_bad_message='skip' and dead_letters={name!r} exclude each other: leave one out")
        if group is None:
            raise SettingsError(
                f"dead_letters={name!r} needs a consumer group: without one nothing remembers which messages went there"
            )
        description = self._dead_letter_topic(name, topics)
        return DeadLetters(description, lambda: self._outputs.producer, self._outputs.in_flight)

    def _dead_letter_topic(self, name: str, topics: Collection[str]) -> TopicDescription:
        if name in topics:
            raise SettingsError(f"dead_letters={name!r} is the topic itself: give another one")
        try:
            return self._get_admin().describe(name, to="write")
        except TopicNotFoundError as exc:
            raise TopicNotFoundError(
                f"there is no dead-letter topic {name!r}: make it with client.topics.create({name!r})", topic=name
            ) from exc

    def _lone_consumer(self) -> Consumer:
        return self._transport.consumer(self.connection, ReaderSettings(), group=None)

    def _contract_check(self, topic: str, given: GivenContract) -> ContractCheck | None:
        if given is None:
            return None
        if not isinstance(given, str):
            return ContractCheck(Contract.of(given), topic)
        if given != "topic":
            raise SettingsError(f"contract={given!r} has to be 'topic', None, or what Contract.of takes")
        kept = self._contracts.get(topic)
        return None if kept is None else ContractCheck(kept, topic, partial(self._contracts.get, topic))

    def _kept_check(self, topic: str) -> ContractCheck | None:
        return self._contract_check(topic, "topic")

    def _grow(self, topic: str, to: int, *, settle: float | None, progress: bool) -> Growth:
        if settle is None:
            writer = self._outputs.settings
            settle = max(seconds(writer.delivery_timeout), seconds(writer.transaction_timeout))
        admin = self._get_admin()
        return grow(topic, to, admin, self._placements, self._lone_consumer, settle=settle, progress=progress)

    def _get_producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._check_open()
                self._producer = self._transport.producer(self.connection, self._outputs.settings)
            return self._producer

    def _forget(self, topic: InputTopic) -> None:
        with self._lock:
            if topic in self._inputs:
                self._inputs.remove(topic)
        self._book.remove(topic)

    def _forget_output(self, topic: OutputTopic) -> None:
        self._book.remove(topic)

    def _close_at_exit(self) -> None:
        try:
            self.close("10s")
        except QuixframesError as exc:
            log.error("at the end of the program: %s", exc, extra=Place.of(exc).extra)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client is closed: make a new StreamingClient")


def _transport(name: str) -> Transport:
    if name == "kafka-python":
        from quixframes.kafka_python import KafkaPython

        return KafkaPython()
    if name != "confluent":
        raise SettingsError(f"transport={name!r} has to be 'kafka-python' or 'confluent'")
    try:
        from quixframes.confluent import Confluent
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "confluent_kafka":
            raise
        raise SettingsError(
            "transport='confluent' needs confluent-kafka, which is not installed: pip install \"quixframes[confluent]\""
        ) from exc
    return Confluent()
