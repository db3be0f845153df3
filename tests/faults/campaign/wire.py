"""A network between clients and the cluster that can be cut, slow and lossy, packet by packet.

Kernels have ``tc netem`` for that where they were built with it. This needs TUN devices and network namespaces, which
almost all have: a client lives in a namespace whose only way out is a TUN device, and this process carries the packets
between that and a second one outside. Brokers need not know: the namespace has no loopback device of its own, so that
127.0.0.1 leads through the wire, to them.

``python -m tests.faults.campaign.wire SEED NAMESPACE...``, as root; "ready" on standard output once all are there.
Commands on standard input: ``NUMBER cut``, ``NUMBER slow DELAY_MS LOSS_PERCENT KBIT``, ``NUMBER clear``. It ends, and
the namespaces with it, when that is closed. On a cut line packets vanish without a word, as on a cable pulled out.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_LONGEST_QUEUE = 1_000


@dataclass
class Direction:
    """Packets from one device to the other, with the moment at which each arrives."""

    source: int
    target: int
    queue: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)
    free_at: float = 0.0


@dataclass
class Link:
    """Both directions, and what is wrong with the line: seconds of delay, share of packets lost, bytes per second."""

    directions: tuple[Direction, Direction]
    is_cut: bool = False
    delay: float = 0.0
    loss: float = 0.0
    rate: float | None = None

    def take(self, packet: bytes, direction: Direction, now: float, randomness: random.Random) -> None:
        """A packet begins its way, or is lost."""
        if self.is_cut or randomness.random() < self.loss or len(direction.queue) >= _LONGEST_QUEUE:
            return
        direction.free_at = max(direction.free_at, now) + (len(packet) / self.rate if self.rate else 0.0)
        arrives = direction.free_at + self.delay
        if direction.queue:
            arrives = max(arrives, direction.queue[-1][0])  # packets do not overtake each other
        direction.queue.append((arrives, packet))

    def order(self, words: list[str]) -> None:
        """Do what a command says."""
        self.is_cut = words[0] == "cut"
        self.delay, self.loss, self.rate = 0.0, 0.0, None
        if words[0] == "slow":
            delay, loss, kbit = map(float, words[1:])
            self.delay, self.loss, self.rate = delay / 1e3, loss / 100, kbit * 1e3 / 8


def device(name: str) -> int:
    """Make a TUN device; it goes with its descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _TUN_WITHOUT_HEADER))
    return descriptor


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def connect(number: int, namespace: str) -> Link:
    """Make the namespace and its line."""
    ours, theirs = f"qfo{os.getpid()}-{number}", f"qfi{os.getpid()}-{number}"
    here, there = f"10.{77 + os.getpid() % 100}.{number}.1", f"10.{77 + os.getpid() % 100}.{number}.2"
    outside, inside = device(ours), device(theirs)
    ip("netns", "add", namespace)
    ip("link", "set", theirs, "netns", namespace)
    ip("addr", "add", here, "peer", there, "dev", ours)
    ip("link", "set", ours, "up")
    ip("-n", namespace, "addr", "add", there, "peer", here, "dev", theirs)
    ip("-n", namespace, "link", "set", theirs, "up")
    # Addresses of the loopback network count as real ones on these two devices.
    with open(f"/proc/sys/net/ipv4/conf/{ours}/route_localnet", "w") as setting:
        setting.write("1")
    ip("netns", "exec", namespace, "sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{theirs}/route_localnet")
    ip("-n", namespace, "route", "add", "127.0.0.0/8", "dev", theirs, "src", there)
    return Link((Direction(inside, outside), Direction(outside, inside)))


def carry(links: list[Link], randomness: random.Random) -> None:
    """Carry packets and obey commands, until standard input ends."""
    from_device = {direction.source: (link, direction) for link in links for direction in link.directions}
    directions = [direction for link in links for direction in link.directions]
    pending = b""
    while True:
        due = min((direction.queue[0][0] for direction in directions if direction.queue), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select([0, *from_device], [], [], wait)
        now = time.monotonic()
        for descriptor in ready:
            if descriptor == 0:
                more = os.read(0, 4096)
                if not more:
                    return
                *lines, pending = (pending + more).split(b"\n")
                for line in lines:
                    number, *words = line.decode().split()
                    links[int(number)].order(words)
                continue
            link, direction = from_device[descriptor]
            with contextlib.suppress(BlockingIOError):
                for _ in range(64):
                    link.take(os.read(descriptor, 65_536), direction, now, randomness)
        for direction in directions:
            while direction.queue and direction.queue[0][0] <= now:
                with contextlib.suppress(OSError):  # a full device loses packets, as networks do
                    os.write(direction.target, direction.queue.popleft()[1])


def main(seed: str, *namespaces: str) -> None:
    """Make the lines, carry, and take them down again."""
    try:
        links = [connect(number, namespace) for number, namespace in enumerate(namespaces)]
        print("ready", flush=True)
        carry(links, random.Random(int(seed)))
    finally:
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
