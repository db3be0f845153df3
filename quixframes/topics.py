"""Topics as things to make, look at and remove: ``client.topics``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from quixframes.about import NamingRule, TopicAbout
from quixframes.contract_store import ContractStore
from quixframes.contracts import Contract
from quixframes.errors import SettingsError, TopicNotFoundError
from quixframes.growth import Growth
from quixframes.kafka import Admin, TopicDescription
from quixframes.replay import Replay
from quixframes.settings import Duration, Size, byte_count, nanoseconds, seconds, whole_number
from quixframes.subscription import OWN

__all__ = ["Topics"]


class Topics:
    """The topics of a cluster."""

    def __init__(
        self,
        admin: Callable[[], Admin],
        contracts: ContractStore,
        replay: Callable[[str], Replay],
        grow: Callable[..., Growth],
    ) -> None:
        self._admin = admin
        self._contracts = contracts
        self._replay = replay
        self._grow = grow

    def create(
        self,
        name: str,
        *,
        partitions: int = 1,
        replication: int | None = None,
        retention: Duration | None = None,
        message_limit: Size | None = None,
        contract: Any = None,
    ) -> TopicDescription:
        """Make a topic, and return when it can be used.

        Args:
            name: letters, digits, dots, underscores and hyphens.
            partitions: how many instances of one model may share the topic at most. It can grow later, not shrink.
            replication: on how many brokers each row is kept; what the cluster has as its default when None.
            retention: how long rows are kept; the cluster's default (usually 7 days) when None.
            message_limit: the largest message; the cluster's default (usually 1 MiB) when None.
            contract: what its rows have to be like, as in :meth:`set_contract`; nothing said when None.

        Raises:
            BrokerError: there is a topic of that name, or the cluster cannot make it so.
        """
        whole_number(partitions, "partitions", least=1)
        if replication is not None:
            whole_number(replication, "replication", least=1)
        settings = {}
        if retention is not None:
            settings["retention.ms"] = str(nanoseconds(retention, name="retention") // 10**6)
        if message_limit is not None:
            settings["max.message.bytes"] = str(byte_count(message_limit, name="message_limit"))
        given = None if contract is None else Contract.of(contract)
        self._check_name(name)
        admin = self._admin()
        admin.create(name, partitions=partitions, replication=replication, settings=settings)
        if given is not None:
            self._contracts.set(name, given, evolve=False)
        return admin.describe(name)

    def describe(self, name: str) -> TopicDescription:
        """The topic as the cluster has it.

        Raises:
            TopicNotFoundError: there is none of that name.
        """
        return self._admin().describe(name)

    def exists(self, name: str) -> bool:
        """Whether there is a topic of that name."""
        try:
            self._admin().describe(name)
        except TopicNotFoundError:
            return False
        return True

    def list(self) -> list[str]:
        """The names of all topics but Kafka's and quixframes' internal ones, sorted."""
        return [name for name in self._admin().topics() if not name.startswith(OWN)]

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
        return self._grow(
            name, to, settle=None if settle is None else seconds(settle, name="settle"), progress=progress
        )

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
        about = replace(self.about(name), **{key: value for key, value in given.items() if value is not None})
        self._admin().describe(name)
        self._contracts.set_about(name, about)
        return about

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

    def _check_name(self, name: str) -> None:
        rule = self.naming()
        if rule is not None:
            rule.check(name)

    def __repr__(self) -> str:
        return "<Topics: create, describe, exists, list, delete, contract, set_contract, learn_contract>"
