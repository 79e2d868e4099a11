"""Which packets are decoded, on invented packets; `test_container` does the same with real files."""

import math
from bisect import bisect_right
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.errors import MediaError
from hedgerow.vision import packets as module
from hedgerow.vision.packets import stretches


@dataclass
class Packet:
    pts: int | None
    is_keyframe: bool = False
    size: int = 100


@st.composite
def streams(draw):
    """Packets as they are decoded: groups shown in another order, some frames before the key frame."""
    found, start = [], 0
    for _ in range(draw(st.integers(1, 5))):
        length = draw(st.integers(1, 9))
        times = [start + 10 * place + draw(st.integers(0, 9)) for place in range(length)]
        key = times.pop(draw(st.integers(0, min(2, length - 1))) if found else 0)
        found += [Packet(key, True), *(Packet(time) for time in draw(st.permutations(times)))]
        start += 10 * length
    return found


wishes = st.lists(st.floats(0, 500), min_size=1, max_size=6).map(sorted)


@given(stream=streams(), wanted=wishes)
def test_no_packet_is_left_out_whose_frame_is_shown(stream, wanted):
    ordered = sorted(packet.pts for packet in stream)
    shown = {ordered[max(bisect_right(ordered, time) - 1, 0)] for time in wanted if time >= ordered[0]}
    used = {
        packet.pts
        for stretch in stretches(stream)
        for packet in stretch.packets[: stretch.last(wanted) + 1]
        if stretch.shows(packet, wanted)
    }
    assert shown <= used


@given(stream=streams(), wanted=wishes)
def test_what_is_left_out_is_shown_at_none_of_the_times(stream, wanted):
    ordered = [*sorted(packet.pts for packet in stream), math.inf]
    for stretch in stretches(stream):
        for packet in stretch.packets[stretch.last(wanted) + 1 :]:
            later = ordered[ordered.index(packet.pts) + 1]
            assert not any(packet.pts <= time < later for time in wanted)


def test_packets_are_gathered_by_group():
    stream = [Packet(0, True), Packet(20), Packet(10), Packet(50, True), Packet(40), Packet(60)]
    first, second = stretches(stream)
    assert (first.packets, first.until, first.low) == (stream[:3], 50, 0)
    assert (second.packets, second.until, second.low) == (stream[3:], math.inf, 40)
    assert (first.key, second.key) == (True, True)
    assert [second.leads(packet) for packet in second.packets] == [False, True, False]


def test_a_frame_that_refers_to_the_group_before_needs_all_of_that_group():
    stream = [Packet(0, True), Packet(20), Packet(10), Packet(50, True), Packet(40), Packet(60)]
    assert [stretch.last([45.0]) for stretch in stretches(stream)] == [2, 1]
    assert [stretch.last([25.0]) for stretch in stretches(stream)] == [1, -1]


def test_only_the_group_of_a_time_is_used_and_no_more_of_it_than_needed():
    stream = [Packet(100 * group + 10 * place, place == 0) for group in range(5) for place in range(10)]
    found = [stretch.last([215.0, 420.0]) for stretch in stretches(stream)]
    assert found == [-1, -1, 1, -1, 2]


def test_a_long_group_is_read_in_parts(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 4)
    stream = [Packet(10 * place, place == 0) for place in range(10)]
    parts = list(stretches(stream))
    assert [len(part.packets) for part in parts] == [4, 4, 2]
    assert [part.key for part in parts] == [True, False, False]
    assert [part.last([55.0]) for part in parts] == [3, 1, -1]


def test_large_packets_are_not_gathered_without_end(monkeypatch):
    monkeypatch.setattr(module, "_BYTES", 250)
    assert [len(part.packets) for part in stretches([Packet(place) for place in range(8)])] == [3, 3, 2]


def test_where_a_time_is_unknown_all_is_used():
    (stretch,) = stretches([Packet(0, True), Packet(None), Packet(20)])
    assert stretch.last([5.0]) == 2
    assert stretch.low == -math.inf


def test_what_was_read_before_an_error_is_given_first():
    def broken():
        yield Packet(0, True)
        yield Packet(10)
        raise MediaError("cut")

    found = stretches(broken())
    assert len(next(found).packets) == 2
    with pytest.raises(MediaError, match="cut"):
        next(found)
