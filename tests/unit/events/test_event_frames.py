"""Records come back whole or not at all, whatever is cut off or flipped."""

from __future__ import annotations

import io

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import frames
from service.events.frames import HEAD_BYTES, MARK, Damage, Record, frame, scan

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PAYLOADS = st.lists(
    st.builds(
        lambda kind, event_id, value: orjson.dumps({"type": kind, "event_id": event_id, "value": value}),
        st.sampled_from(["view", "impression", '{"type":"']),
        TEXTS,
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    min_size=1,
    max_size=6,
)


def found(data: bytes, start: int = 0) -> list[Record | Damage]:
    return list(scan(io.BytesIO(data), start))


def ends_of(payloads: list[bytes]) -> list[int]:
    ends, end = [], 0
    for payload in payloads:
        end += HEAD_BYTES + len(payload)
        ends.append(end)
    return ends


@given(PAYLOADS)
def test_what_is_written_is_read_back_in_order(payloads: list[bytes]) -> None:
    records = found(b"".join(map(frame, payloads)))
    assert [record.payload for record in records if isinstance(record, Record)] == payloads
    assert [record.end for record in records if isinstance(record, Record)] == ends_of(payloads)


@given(PAYLOADS, st.data())
def test_cut_anywhere_exactly_the_whole_records_before_the_cut_are_read(
    payloads: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(map(frame, payloads))
    cut = data.draw(st.integers(0, len(whole)))
    ends = [end for end in ends_of(payloads) if end <= cut]
    read = found(whole[:cut])
    assert [r.payload for r in read if isinstance(r, Record)] == payloads[: len(ends)]
    torn = [d for d in read if isinstance(d, Damage)]
    last = ends[-1] if ends else 0
    assert [(d.offset, d.size, d.at_end) for d in torn] == ([(last, cut - last, True)] if cut > last else [])


@given(PAYLOADS, st.data())
def test_any_changed_byte_is_noticed_and_costs_no_other_record(
    payloads: list[bytes], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(map(frame, payloads)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    hit = sum(end <= place for end in ends_of(payloads))
    read = found(bytes(whole))
    assert [r.payload for r in read if isinstance(r, Record)] == payloads[:hit] + payloads[hit + 1 :]
    (damage,) = (d for d in read if isinstance(d, Damage))
    assert damage.offset == ([0, *ends_of(payloads)])[hit]
    assert damage.size == HEAD_BYTES + len(payloads[hit])
    assert damage.at_end == (hit == len(payloads) - 1)


@given(PAYLOADS, PAYLOADS, st.binary(min_size=1, max_size=200))
def test_what_is_yielded_covers_every_byte_once(
    before: list[bytes], after: list[bytes], rubbish: bytes
) -> None:
    data = b"".join(map(frame, before)) + rubbish + b"".join(map(frame, after))
    at = 0
    for one in found(data):
        assert one.offset == at
        at = one.end if isinstance(one, Record) else one.offset + one.size
    assert at == len(data)


@given(st.integers(1, 300))
def test_zeros_are_no_records(count: int) -> None:
    (damage,) = found(bytes(count))
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.size, damage.at_end) == (0, count, True)


def test_the_way_back_is_found_across_the_reading_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b'{"type":"view","event_id":"after"}'
    for step in range(HEAD_BYTES + len(MARK), 60):
        monkeypatch.setattr(frames, "_CHUNK_BYTES", step)
        for gap in range(1, 120, 7):
            damage, record = found(b"\xff" * gap + frame(payload))
            assert (damage.offset, isinstance(record, Record), record.offset) == (0, True, gap)


def test_reading_can_begin_at_any_record() -> None:
    payloads = [b'{"type":"view","event_id":"%d"}' % number for number in range(5)]
    data = b"".join(map(frame, payloads))
    for number, end in enumerate(ends_of(payloads)):
        assert [r.payload for r in found(data, end) if isinstance(r, Record)] == payloads[number + 1 :]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"event_id":"1"}', MARK + b"x" * (16 << 20)])
def test_what_could_not_be_read_back_is_not_framed(payload: bytes) -> None:
    with pytest.raises(ValueError, match="a payload begins with"):
        frame(payload)
