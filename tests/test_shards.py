"""Pieces of a run: disjoint, together the whole, and refused where they are none."""

import pytest

from memorization_suite.runs.shards import WHOLE, Shard, parse_shard


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_pieces_are_disjoint_and_make_the_whole(count):
    pieces = [
        {batch for batch in range(20) if piece.has(batch)} for piece in Shard(1, count).siblings()
    ]
    assert sorted(batch for piece in pieces for batch in piece) == list(range(20))


@pytest.mark.parametrize("piece", [WHOLE, Shard(2, 4), Shard(3, 3)])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_a_piece(piece, processes):
    shares = [
        {batch for batch in range(60) if piece.part(number, processes).has(batch)}
        for number in range(1, processes + 1)
    ]
    assert sorted(batch for share in shares for batch in share) == [
        batch for batch in range(60) if piece.has(batch)
    ]


def test_a_piece_is_typed_as_it_is_said():
    assert parse_shard("2/4") == Shard(2, 4) and str(Shard(2, 4)) == "2/4"
    assert parse_shard("") == parse_shard("1/1") == WHOLE and not WHOLE and Shard(1, 2)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "1/2/3", "-1/2", "٢/٤", "1 /2"])
def test_what_is_no_piece_is_refused(text):
    with pytest.raises(ValueError, match="I from 1 to N, whole batches are the unit"):
        parse_shard(text)
