"""The workers' meeting: every trouble ends with a clear error on each of them, in time."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest

from keras_bot.cli.commands.launch import free_ports
from keras_bot.errors import MisuseError, RunError
from keras_bot.training.distributed.cluster import Cluster, meet, split_address
from keras_bot.training.distributed.rendezvous import TROUBLE, Verdict, hello_line, read_line, tell_differences


def addresses(count):
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def meet_all(clusters, facts, timeout=20.0):
    """What each worker's meeting raised, None for nothing."""

    def one(cluster, own):
        try:
            meet(cluster, own, timeout)
        except (MisuseError, RunError) as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(clusters)) as pool:
        return list(pool.map(one, clusters, facts))


def all_of(names):
    return [Cluster(names, index) for index in range(len(names))]


def test_equal_workers_meet_and_their_ports_are_free_at_once():
    names = addresses(3)
    for _ in range(5):
        assert meet_all(all_of(names), [{"batch_size": "64"}] * 3) == [None] * 3
        with servers_at(names):
            pass


@contextlib.contextmanager
def servers_at(names):
    """Listens at all the addresses as gRPC's servers do."""
    with contextlib.ExitStack() as opened:
        for name in names:
            family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
            server = opened.enter_context(socket.socket(family))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("", split_address(name)[1]))
            server.listen()
        yield


def test_a_worker_alone_meets_nobody():
    meet(Cluster(("nowhere.invalid:1",), 0), {}, 1)


def test_facts_that_differ_are_told_to_every_worker():
    facts = [{"batch_size": "64", "seed": "1"}, {"batch_size": "32", "seed": "1"}, {"batch_size": "64", "seed": "1"}]
    errors = meet_all(all_of(addresses(3)), facts)
    for error in errors:
        assert isinstance(error, MisuseError)
        assert str(error) == (
            "Expected the same recipe on every worker; batch_size is 64 on workers 0, 2 and 32 on worker 1."
        )


def test_long_values_that_differ_at_their_end_differ():
    errors = meet_all(all_of(addresses(2)), [{"a": "x" * 5000 + "1"}, {"a": "x" * 5000 + "2"}])
    assert all(isinstance(error, MisuseError) and len(str(error)) < 600 for error in errors)


def test_a_fact_that_one_lacks_is_told():
    for error in meet_all(all_of(addresses(2)), [{"a": "1", "b": "2"}, {"a": "1"}]):
        assert "b is 2 on worker 0 and unknown on worker 1" in str(error)


def test_clusters_that_differ_are_told():
    first, second, third = addresses(3)
    for error in meet_all([Cluster((first, second), 0), Cluster((first, third), 1)], [{}, {}]):
        assert isinstance(error, MisuseError) and f"TF_CONFIG's cluster is {first},{second} on worker 0" in str(error)
    for error in meet_all([Cluster((first, second), 0), Cluster((first, second, third), 2)], [{}, {}]):
        assert isinstance(error, MisuseError) and "names 2 workers on worker 0, and worker 2 came" in str(error)


def test_a_worker_that_does_not_come_is_named_to_all_who_wait():
    names = addresses(3)
    began = time.monotonic()
    for error in meet_all([Cluster(names, 0), Cluster(names, 1)], [{}, {}], timeout=1):
        assert isinstance(error, RunError) and f"No answer from worker 2 ({names[2]}) within 1 s" in str(error)
    assert time.monotonic() - began < 4


def test_a_chief_that_does_not_come_is_named():
    names = addresses(2)
    with pytest.raises(
        RunError, match=rf"Worker 0 \({names[0]}\) didn't answer worker 1 within 1 s: Connection refused"
    ):
        meet(Cluster(names, 1), {}, 1)


def test_a_host_that_cannot_be_resolved_is_told_at_once_and_may_come_up_yet(capsys):
    _, own = addresses(2)
    with pytest.raises(RunError, match=r"nowhere\.invalid:2222\) didn't answer .* its host can't be resolved"):
        meet(Cluster(("nowhere.invalid:2222", own), 1), {}, 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "waiting for worker 0 (nowhere.invalid:2222): its host can't be resolved" in lines[0]


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use_is_told(index):
    names = addresses(2)
    with socket.create_server(("127.0.0.1", split_address(names[index])[1])), pytest.raises(RunError) as told:
        meet(Cluster(names, index), {}, 1)
    assert f"Worker {index} can't listen on its port {split_address(names[index])[1]}: Address already in use." in str(
        told.value
    )


def test_two_workers_of_one_index_are_told():
    names = addresses(3)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet_all, [Cluster(names, 0), Cluster(names, 1)], [{}] * 2)
        time.sleep(0.5)  # on one host, they would find each other's port in use at the very same moment
        second = pool.submit(meet_all, [Cluster(names, 1)], [{}])
    for error in [*first.result(), *second.result()]:
        assert isinstance(error, MisuseError) and "index of its own for each worker, received 1 from" in str(error)


def connect(name):
    """A connection to a chief that may be about to start."""
    for _ in range(500):
        try:
            return socket.create_connection(split_address(name))
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise AssertionError("nothing listens")


def test_strangers_do_not_disturb_the_chief():
    names = addresses(2)
    results = []
    chief = threading.Thread(target=lambda: results.append(meet_all([Cluster(names, 0)], [{}])))
    chief.start()
    words = [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x00\xff\n",
        b'{"keras_bot_worker": "x", "facts": 3}\n',
        b"[" * 99999 + b"\n",
    ]
    words += [b"x" * (2 << 20), b"null\n", b"no end of line"]
    strangers = [connect(names[0]) for _ in range(4)]  # say nothing
    for word in words:
        with connect(names[0]) as stranger:
            try:
                stranger.sendall(word)
            except OSError:
                assert len(word) > 1 << 20
    assert meet_all([Cluster(names, 1)], [{}]) == [None]
    chief.join()
    assert results == [[None]]
    with servers_at(names):
        pass
    for stranger in strangers:
        stranger.close()


def test_a_worker_that_was_started_again_is_let_in():
    names = addresses(3)

    def first_life():
        with connect(names[0]) as connection:
            connection.sendall(b'{"keras_bot_worker": 1, "facts": {}}\n')
            time.sleep(0.2)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        chief = pool.submit(meet_all, [Cluster(names, 0)], [{}])
        pool.submit(first_life).result()
        assert meet_all([Cluster(names, 1), Cluster(names, 2)], [{}, {}]) == [None, None]
        assert chief.result() == [None]


def test_a_chief_that_was_started_again_is_found():
    names = addresses(2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = socket.create_server(("", split_address(names[0])[1]))
        worker = pool.submit(meet_all, [Cluster(names, 1)], [{}])
        first.accept()[0].close()
        first.close()
        assert meet_all([Cluster(names, 0)], [{}]) == [None]
        assert worker.result() == [None]


def test_another_service_at_the_chiefs_address_is_told():
    names = addresses(2)
    with socket.create_server(("", split_address(names[0])[1])) as service:

        def greet():
            while True:
                try:
                    connection, _ = service.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.0 400 Bad Request\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(RunError, match="what listens there is no worker that waits"):
            meet(Cluster(names, 1), {}, 1)
        service.shutdown(socket.SHUT_RDWR)


def test_the_chiefs_port_is_free_when_its_verdict_comes():
    names = addresses(2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        chief = pool.submit(meet_all, [Cluster(names, 0)], [{}])
        with connect(names[0]) as worker:
            worker.sendall(hello_line(1, {"TF_CONFIG's cluster": ",".join(names)}))
            assert Verdict.read(read_line(worker)) == Verdict("go")
            with servers_at(names):  # as TensorFlow's are, while the chief may still be parting
                pass
        assert chief.result() == [None]


def test_a_workers_trouble_is_told_before_differences():
    facts = [{"seed": "1", TROUBLE: "The run_dir is a file."}, {"seed": "2", TROUBLE: ""}]
    assert tell_differences(facts) == "Worker 0 can't begin: The run_dir is a file."
