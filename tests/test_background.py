"""Work in a second thread: in order, bounded, no error lost."""

import threading

import pytest

from memorization_suite.runs.background import Background


def test_calls_run_in_order_and_are_done_at_the_end():
    done = []
    with Background(waiting=2) as background:
        for number in range(20):
            background.do(done.append, number)
    assert done == list(range(20))


def test_no_more_calls_wait_than_are_allowed():
    go_on = threading.Event()
    begun = threading.Event()

    def hold():
        begun.set()
        go_on.wait(10)

    def give(background):
        for _ in range(3):
            background.do(hold)
        all_given.set()

    all_given = threading.Event()
    with Background(waiting=2) as background:
        giver = threading.Thread(target=give, args=[background])
        giver.start()
        assert begun.wait(10)
        assert not all_given.wait(0.2)
        go_on.set()
        giver.join(10)
        assert all_given.is_set()


def fail():
    raise OSError("no space left")


def test_an_error_is_raised_at_the_end_of_the_block():
    with pytest.raises(OSError, match="no space"), Background() as background:
        background.do(fail)


def test_an_error_stops_the_work():
    begun = []
    with pytest.raises(OSError, match="no space"), Background(waiting=2) as background:
        for number in range(100):
            begun.append(number)
            background.do(fail)
    assert len(begun) < 100


def test_what_was_given_is_done_when_the_block_is_left_by_an_error():
    done = []
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.do(done.append, 1)
        raise KeyboardInterrupt
    assert done == [1]


def test_an_error_of_the_block_is_the_one_that_is_raised():
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.do(fail)
        raise KeyboardInterrupt
