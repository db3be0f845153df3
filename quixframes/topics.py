"""Topics as things to make, look at, change and remove: ``client.topics``."""

from __future__ import annotations

import builtins
import html
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import pandas as pd

from quixframes.about import NamingRule, TopicAbout
from quixframes.access import Access
from quixframes.contract_store import ContractStore
from quixframes.contracts import Contract
from quixframes.errors import SettingsError
from quixframes.grants import Names
from quixframes.growth import Growth
from quixframes.kafka import Admin, Consumer, TopicDescription
from quixframes.logs import Place
from quixframes.replay import Replay
from quixframes.settings import Duration, Size, whole_number
from quixframes.subscription import OWN
from quixframes.topic_changes import TopicChanges
from quixframes.topic_looks import TopicLooks
from quixframes.topic_plan import Applied
from quixframes.topic_report import Balance, TopicReport
from quixframes.topic_spec import TopicSpec

__all__ = ["Topics"]

log = logging.getLogger(__name__)


class Topics:
    """The topics of a cluster.

    Args:
        admin: gives the client's own.
        consumer: makes a consumer of no group.
        contracts: where contracts are kept.
        replay: reads a topic.
        grow: gives a topic more partitions.
    """

    def __init__(
        self,
        admin: Callable[[], Admin],
        consumer: Callable[[], Consumer],
        contracts: ContractStore,
        replay: Callable[[str], Replay],
        grow: Callable[..., Growth],
    ) -> None:
        self._admin = admin
        self._contracts = contracts
        self._replay = replay
        self._looks = TopicLooks(admin, consumer)
        self._changes = TopicChanges(admin, contracts, grow)
        self._access = Access(admin)

    # Making, changing, removing

    def create(
        self,
        name: str | TopicSpec,
        *,
        partitions: int | None = None,
        replication: int | None = None,
        retention: Duration | Literal["forever"] | None = None,
        retention_size: Size | Literal["unlimited"] | None = None,
        message_limit: Size | None = None,
        compression: Literal["producer", "none", "gzip", "snappy", "lz4", "zstd"] | None = None,
        min_in_sync: int | None = None,
        contract: Any = None,
        stage: str | None = None,
        owner: str | None = None,
        description: str | None = None,
        made_from: Collection[str] | None = None,
        model: str | None = None,
    ) -> TopicDescription:
        """Make a topic, and return when it can be used.

        Contract, and what it is for, are kept before the topic is there: whoever finds it, finds them too. Of an
        earlier topic of the name nothing is kept.

        Args:
            name: letters, digits, dots, underscores and hyphens. Or a :class:`TopicSpec`, which says all of it.
            partitions: how many instances of one model may share the topic at most. Default 1. It can grow later, not
                shrink.
            replication: on how many brokers each row is kept; what the cluster has as its default when None.
            retention: how long rows are kept; the cluster's default (usually 7 days) when None; or "forever".
            retention_size: how large it may become, over all partitions, before the oldest rows go; the cluster's
                default (usually "unlimited") when None. Kafka limits each partition: each gets its equal part.
            message_limit: the largest message; the cluster's default (usually 1 MiB) when None.
            compression, min_in_sync: as in :class:`TopicSpec`.
            contract: what its rows have to be like, as in :meth:`set_contract`; nothing said when None.
            stage, owner, description, made_from, model: what it is for, as in :meth:`set_about`.

        Raises:
            SettingsError: an argument cannot be; the replication is over the number of brokers, for one.
            BrokerError: there is a topic of that name, or the cluster cannot make it so.
        """
        spec = _spec(
            name,
            partitions=partitions,
            replication=replication,
            retention=retention,
            retention_size=retention_size,
            message_limit=message_limit,
            compression=compression,
            min_in_sync=min_in_sync,
            contract=contract,
            stage=stage,
            owner=owner,
            description=description,
            made_from=made_from,
            model=model,
        )
        return self._changes.create(spec)

    def alter(
        self,
        name: str,
        *,
        retention: Duration | Literal["forever"] | None = None,
        retention_size: Size | Literal["unlimited"] | None = None,
        message_limit: Size | None = None,
        compression: Literal["producer", "none", "gzip", "snappy", "lz4", "zstd"] | None = None,
        min_in_sync: int | None = None,
    ) -> Applied:
        """Change settings of a topic; what is None, and everything else, stays as it is.

        Shorter retention removes rows for good, within minutes. For more partitions see :meth:`add_partitions`.

        Args:
            name: the topic. All others are as in :class:`TopicSpec`.

        Returns:
            What was changed, as a table.

        Raises:
            SettingsError: an argument cannot be.
            TopicNotFoundError: there is no such topic.
        """
        spec = _spec(
            name,
            retention=retention,
            retention_size=retention_size,
            message_limit=message_limit,
            compression=compression,
            min_in_sync=min_in_sync,
        )
        self._admin().describe(name)
        applied = self.apply([spec])
        for one in applied.not_done:
            if one.error is not None:
                raise one.error
            raise SettingsError(f"{one.difference.item}={one.difference.wanted} of topic {name!r}: {one.why}")
        return applied

    def delete(self, name: str) -> None:
        """Remove a topic and every row in it, and forget its contract and what was said about it.

        Raises:
            TopicNotFoundError: there is none of that name.
        """
        self._admin().delete(name)
        self._contracts.remove(name)
        self._contracts.set_about(name, None)

    def add_partitions(self, name: str, to: int, *, settle: Duration | None = None, progress: bool = True) -> Growth:
        """Give a topic more partitions, without moving a stream: those that are in it stay in the partitions in which
        they are, in their order, also after their writers restart. Streams that come later are spread over all.

        Writing and reading go on meanwhile. It takes as long as the slowest writer may need to learn of it and to
        deliver what it has accepted (10 s, and ``settle``), and to read once which streams there are. Cut off in the
        middle, nothing is lost: the next call goes on.

        Messages of other Kafka clients than quixframes follow the new count at once, as Kafka has it.

        Kafka limits the size of each partition, and each keeps its part of ``retention_size``, so that growing removes
        no row: the topic as a whole may become that much larger. The result says so, with the call that divides the
        size anew.

        Args:
            name: the topic.
            to: how many partitions it is to have. They can never be fewer again.
            settle: how long what any writer has accepted may take to be in the topic, or to fail. Default: this
                client's delivery time-out, or that of its transactions, whichever is longer (usually 60 s). A shorter
                time is for those who know their writers.
            progress: whether bars show how far it is.

        Returns:
            What became of it, with figures on how many streams stay that Kafka alone would have moved.

        Raises:
            SettingsError: it has more already.
            TopicNotFoundError: there is none of that name.
        """
        whole_number(to, "to", least=1)
        growth = self._changes.grow(name, to, settle=settle, progress=progress)
        log.log(
            logging.WARNING if growth.size_after != growth.size_before else logging.INFO,
            "%s",
            growth,
            extra=Place(name).extra,
        )
        return growth

    def apply(self, specs: Sequence[TopicSpec], *, dry_run: bool = False, settle: Duration | None = None) -> Applied:
        """Make the topics what they are to be: create those that are not there, change what differs, leave all else.

        Each topic is done by itself: what cannot be done, or fails, is told in the result, and the others are done.
        What is refused: fewer partitions, another replication. No topic is ever removed.

        Args:
            specs: what topics are to be like.
            dry_run: only tell what would be done.
            settle: for topics that get more partitions, which takes a while: as in :meth:`add_partitions`.

        Returns:
            Every difference, and what became of it; shown as a table.

        Raises:
            SettingsError: two specs are of one topic.
            BrokerUnavailableError: nobody answers.

        >>> client.topics.apply([TopicSpec("engine", partitions=6, retention="7 days")], dry_run=True)  # doctest: +SKIP
        """
        if isinstance(specs, TopicSpec):
            specs = [specs]
        return self._changes.apply(specs, dry_run=dry_run, settle=settle)

    # Looking

    def list(self) -> builtins.list[str]:
        """The names of all topics but Kafka's and quixframes' internal ones, sorted."""
        return [name for name in self._admin().topics() if not name.startswith(OWN)]

    def table(self) -> pd.DataFrame:
        """All topics, a row each, indexed by name: partitions, replication, messages, bytes, stored (with replicas),
        retention and retention_size (as Kafka has them, the size for all partitions; None is without end), oldest and
        newest event time. Topics that may not be described are left out.

        It asks several things of every topic: with thousands of them, take :meth:`list`.
        """
        return self._looks.table(self.list())

    def describe(self, name: str, *, rows: bool = False) -> TopicReport:
        """The topic as it is now.

        Args:
            name: the topic.
            rows: whether to read all of it, for how many rows and streams there are. Default False: the first and last
                messages of each partition alone are read.

        Raises:
            TopicNotFoundError: there is none of that name.
            OffsetGoneError: with ``rows``: retention removed a part of it while it was being read.
        """
        return self._looks.report(name, rows=rows)

    def exists(self, name: str) -> bool:
        """Whether there is a topic of that name."""
        return self._changes.exists(name)

    def balance(self, name: str) -> Balance:
        """How evenly streams, rows and bytes are spread over the topic's partitions. It reads all of the topic.

        Raises:
            TopicNotFoundError: there is no such topic.
            OffsetGoneError: retention removed a part of it while it was being read.
        """
        return self._looks.balance(name)

    # Access

    def grant(
        self,
        principal: str,
        *,
        read: Names | None = None,
        write: Names | None = None,
        group: Names | None = None,
        own: Names | None = None,
        dry_run: bool = False,
    ) -> pd.DataFrame:
        """Let a principal do what its role needs, and no more. What it may do already, it may still do.

        A reader is granted ``read`` (and a ``group``, unless it only replays), a writer ``write``, a model all three,
        with which it may also write exactly once, and an owner ``own``: all of that, and to make, change, grow and
        remove the topic, and set its contract. What that is in Kafka's terms: :mod:`quixframes.grants`.

        Args:
            principal: the user, as "pace-model".
            read, write, own: topics: a name; one that ends in ``*`` for all that begin like it, "engine-*"; or several.
                ``"*"`` is all there are, with those that Kafka and quixframes keep for themselves.
            group: consumer groups, in the same way.
            dry_run: only tell what would be added.

        Returns:
            What was added, as :meth:`access` has it. The cluster's other brokers hear of it within a moment.

        Raises:
            SettingsError: a name cannot be, or none is given.
            AccessDeniedError: who calls it may not grant anything, or the cluster keeps no permissions.

        >>> client.topics.grant("pace-model", read="engine", group="pace-model", write="engine-clean")  # doctest: +SKIP
        """
        return self._access.grant(principal, read=read, write=write, group=group, own=own, dry_run=dry_run)

    def revoke(
        self,
        principal: str,
        *,
        read: Names | None = None,
        write: Names | None = None,
        group: Names | None = None,
        own: Names | None = None,
        dry_run: bool = False,
    ) -> pd.DataFrame:
        """Take away what :meth:`grant` gave: these roles, or, where none is said, all that the principal was allowed.

        What it needs for the roles that it keeps, stays. Brokers hear of it within a moment, also about connections
        that are open. What the principal is forbidden is not touched, nor what everybody is allowed. A role that is
        taken away and that a wider one still allows (``read="car-1"`` beside ``read="car-*"``) is told in the log.

        Args:
            principal, read, write, group, own, dry_run: as in :meth:`grant`.

        Returns:
            What was removed, as :meth:`access` has it.

        Raises:
            SettingsError, AccessDeniedError: as :meth:`grant`; a list without names is none, and not all.
        """
        return self._access.revoke(principal, read=read, write=write, group=group, own=own, dry_run=dry_run)

    def access(self, principal: str | None = None) -> pd.DataFrame:
        """Who may do what, as the cluster keeps it; of one principal, or of all.

        Columns: ``principal`` ("User:alice"), ``permission`` ("allow" or "deny"), ``operation`` ("read"), ``resource``
        ("topic", "group", "transactional_id" ...), ``name``, ``pattern`` ("literal", or "prefix" for all names that
        begin like it), ``host`` ("*" is any). Without a row, nobody but the cluster's administrators may do a thing,
        unless it is set up otherwise.

        Raises:
            AccessDeniedError: who calls it may not see permissions, or the cluster keeps none.
        """
        return self._access.table(principal)

    # Contracts

    def contract(self, name: str) -> Contract | None:
        """The contract that a topic carries; None where it has none."""
        return self._contracts.get(name)

    def set_contract(self, name: str, contract: Any, *, force: bool = False) -> Contract:
        """Say what the rows of a topic have to be like: for every writer and reader that opens it from now on.

        It is kept in Kafka, in the compacted topic ``__quixframes.contracts``. Rows that are in the topic already stay
        as they are; reading, they have to keep it too.

        Args:
            name: the topic, which has to exist.
            contract: a :class:`~quixframes.Contract`; or a dict of names and dtypes, a ``pyarrow.Schema`` or a
                DataFrame, as ``Contract.of`` takes them.
            force: whether it may also be one that cannot follow the topic's present one, since rows that kept that one
                would break this. Default False.

        Raises:
            ContractError: it cannot follow the present one, or one that somebody else set at the same moment; the text
                has a table of the differences.
            SettingsError: the topic of contracts would not keep it, as it is not compacted.
            TopicNotFoundError: there is no such topic.
        """
        given = Contract.of(contract)
        self._admin().describe(name)
        self._contracts.set(name, given, evolve=not force)
        return given

    def learn_contract(self, name: str, *, force: bool = False, **settings: Any) -> Contract:
        """Make the first rows in a topic the contract of all: their columns, and their dtypes.

        Args:
            name: the topic.
            force: as in :meth:`set_contract`.
            settings: ``policy``, ``out_of_range`` and ``additional`` of the contract.

        Raises:
            SettingsError: there are no rows in it to learn from.
            ContractError: as in :meth:`set_contract`.
        """
        for batch in self._replay(name).batches():
            if len(batch):
                return self.set_contract(name, Contract.of(batch.arrow, **settings), force=force)
        raise SettingsError(
            f"there are no rows in topic {name!r} to learn a contract from: write some, or use set_contract"
        )

    def remove_contract(self, name: str) -> None:
        """Forget what the rows of a topic have to be like."""
        self._contracts.remove(name)

    # Governance

    def about(self, name: str) -> TopicAbout:
        """What is said about a topic: its stage, its owner, what is in it, what it is made from. Fields of which
        nothing is said are None."""
        return self._contracts.about(name) or TopicAbout()

    def set_about(
        self,
        name: str,
        *,
        stage: str | None = None,
        owner: str | None = None,
        description: str | None = None,
        made_from: Collection[str] | None = None,
        model: str | None = None,
    ) -> TopicAbout:
        """Say what a topic is for: for everybody who uses the cluster. ``client.pipeline()`` draws it.

        It is kept in Kafka, beside the topic's contract. Arguments that are None leave what was said before; "" (and
        for ``made_from`` an empty list) takes it back.

        Args:
            name: the topic, which has to exist.
            stage: its place in a pipeline: "raw", "clean", "results", "prototype" (results of a model that is still
                being developed), or a word of your own.
            owner: who answers for it.
            description: what is in it.
            made_from: the topics of which it is made. They need not exist yet.
            model: what makes it. Give the consumer group with which it reads ``made_from``: its lag can be told then.

        Returns:
            All that is said about it now.

        Raises:
            TopicNotFoundError: there is no such topic.
            SettingsError: an argument is no text.
        """
        given: dict[str, Any] = {
            "stage": stage,
            "owner": owner,
            "description": description,
            "made_from": made_from,
            "model": model,
        }
        self._admin().describe(name)
        return self._changes.set_about(name, {key: value for key, value in given.items() if value is not None})

    def naming(self) -> NamingRule | None:
        """The rule that the names of new topics have to keep; None where there is none."""
        return self._contracts.naming()

    def set_naming(self, rule: NamingRule | str | None, message: str = "") -> NamingRule | None:
        """Say how topics of this cluster are named. Whoever creates one with quixframes is held to it from now on;
        ``client.pipeline()`` tells of those there are that do not keep it.

        Args:
            rule: a regular expression that a whole name has to match, or a :class:`~quixframes.NamingRule`; None: any
                name will do again.
            message: said to whom it refuses, beside the pattern.

        Raises:
            SettingsError: it is no regular expression.
        """
        given = NamingRule(rule, message) if isinstance(rule, str) else rule
        self._contracts.set_naming(given)
        return given

    def __repr__(self) -> str:
        return "<Topics: list(), table(), describe(name), create(name), alter(name), apply([...]), delete(name), ...>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self)[1:-1])}</p>"

    # Inside

    def _ensure(self, names: Collection[str], create: bool | TopicSpec) -> None:
        """Make those topics that are not there, where the user allows it, when they are about to be opened."""
        self._changes.ensure(names, create)


def _spec(name: str | TopicSpec, **wanted: Any) -> TopicSpec:
    """The one that was given, or that of these arguments."""
    if not isinstance(name, TopicSpec):
        return TopicSpec(name, **wanted)
    if given := [name for name, value in wanted.items() if value is not None]:
        raise SettingsError(f"{', '.join(given)} beside a TopicSpec: say it in the one or in the other")
    return name
