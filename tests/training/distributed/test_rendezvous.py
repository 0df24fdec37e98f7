"""The workers' rendezvous: every problem ends with a clear error on each worker, in time."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest

from keras_bot.cli.commands.launch import free_ports
from keras_bot.errors import MisuseError, RunError
from keras_bot.training.distributed.cluster import Cluster, split_address
from keras_bot.training.distributed.rendezvous import (
    STARTUP_ERROR,
    RendezvousResult,
    describe_differences,
    hello_line,
    read_line,
)
from keras_bot.training.distributed.rendezvous_client import rendezvous


def addresses(count):
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def run_workers(clusters, facts, timeout=20.0):
    """Runs the rendezvous of each worker in a thread. Returns the errors raised, None for a worker without one."""

    def run_worker(cluster, worker_facts):
        try:
            rendezvous(cluster, worker_facts, timeout)
        except (MisuseError, RunError) as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(clusters)) as pool:
        return list(pool.map(run_worker, clusters, facts))


def clusters_of(names):
    return [Cluster(names, index) for index in range(len(names))]


def test_equal_workers_connect_and_their_ports_are_free_immediately():
    names = addresses(3)
    for _ in range(5):
        assert run_workers(clusters_of(names), [{"batch_size": "64"}] * 3) == [None] * 3
        with servers_at(names):
            pass


@contextlib.contextmanager
def servers_at(names):
    """Listens at all addresses like gRPC's servers."""
    with contextlib.ExitStack() as opened:
        for name in names:
            family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
            server = opened.enter_context(socket.socket(family))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("", split_address(name)[1]))
            server.listen()
        yield


def test_a_single_worker_does_not_connect():
    rendezvous(Cluster(("nowhere.invalid:1",), 0), {}, 1)


def test_differing_facts_are_reported_on_every_worker():
    facts = [{"batch_size": "64", "seed": "1"}, {"batch_size": "32", "seed": "1"}, {"batch_size": "64", "seed": "1"}]
    errors = run_workers(clusters_of(addresses(3)), facts)
    for error in errors:
        assert isinstance(error, MisuseError)
        assert str(error) == (
            "The recipe differs between workers: batch_size is 64 on workers 0, 2 and 32 on worker 1."
        )


def test_long_values_are_compared_to_the_end():
    errors = run_workers(clusters_of(addresses(2)), [{"a": "x" * 5000 + "1"}, {"a": "x" * 5000 + "2"}])
    assert all(isinstance(error, MisuseError) and len(str(error)) < 600 for error in errors)


def test_a_missing_fact_is_reported():
    for error in run_workers(clusters_of(addresses(2)), [{"a": "1", "b": "2"}, {"a": "1"}]):
        assert "b is 2 on worker 0 and missing on worker 1" in str(error)


def test_differing_clusters_are_reported():
    first, second, third = addresses(3)
    for error in run_workers([Cluster((first, second), 0), Cluster((first, third), 1)], [{}, {}]):
        assert isinstance(error, MisuseError) and f"TF_CONFIG's cluster is {first},{second} on worker 0" in str(error)
    for error in run_workers([Cluster((first, second), 0), Cluster((first, second, third), 2)], [{}, {}]):
        assert isinstance(error, MisuseError) and "lists 2 workers on worker 0, but worker 2 connected" in str(error)


def test_a_missing_worker_is_named_on_all_waiting_workers():
    names = addresses(3)
    began = time.monotonic()
    for error in run_workers([Cluster(names, 0), Cluster(names, 1)], [{}, {}], timeout=1):
        assert isinstance(error, RunError) and f"No connection from worker 2 ({names[2]}) within 1 s" in str(error)
    assert time.monotonic() - began < 4


def test_a_missing_chief_is_named():
    names = addresses(2)
    with pytest.raises(
        RunError, match=rf"No answer from worker 0 \({names[0]}\) to worker 1 within 1 s: Connection refused"
    ):
        rendezvous(Cluster(names, 1), {}, 1)


def test_an_unresolved_host_is_reported_at_once_and_retried(capsys):
    _, own = addresses(2)
    with pytest.raises(RunError, match=r"No answer from .*nowhere\.invalid:2222\) .* its host name cannot be resolved"):
        rendezvous(Cluster(("nowhere.invalid:2222", own), 1), {}, 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "waiting for worker 0 (nowhere.invalid:2222): its host name cannot be resolved" in lines[0]


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use_is_reported(index):
    names = addresses(2)
    with socket.create_server(("127.0.0.1", split_address(names[index])[1])), pytest.raises(RunError) as raised:
        rendezvous(Cluster(names, index), {}, 1)
    port = split_address(names[index])[1]
    assert f"Worker {index} cannot listen on its port {port}: Address already in use." in str(raised.value)


def test_two_workers_with_the_same_index_are_reported():
    names = addresses(3)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_workers, [Cluster(names, 0), Cluster(names, 1)], [{}] * 2)
        time.sleep(0.5)  # on one host, they would otherwise find the port in use at the same moment
        second = pool.submit(run_workers, [Cluster(names, 1)], [{}])
    for error in [*first.result(), *second.result()]:
        assert isinstance(error, MisuseError) and "have the same index 1." in str(error)


def connect(name):
    """Connects to a chief that may not listen yet."""
    for _ in range(500):
        try:
            return socket.create_connection(split_address(name))
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise AssertionError("nothing listens")


def test_other_connections_do_not_disturb_the_chief():
    names = addresses(2)
    results = []
    chief = threading.Thread(target=lambda: results.append(run_workers([Cluster(names, 0)], [{}])))
    chief.start()
    messages = [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x00\xff\n",
        b'{"keras_bot_worker": "x", "facts": 3}\n',
        b"[" * 99999 + b"\n",
    ]
    messages += [b"x" * (2 << 20), b"null\n", b"no end of line"]
    strangers = [connect(names[0]) for _ in range(4)]  # send nothing
    for message in messages:
        with connect(names[0]) as stranger:
            try:
                stranger.sendall(message)
            except OSError:
                assert len(message) > 1 << 20
    assert run_workers([Cluster(names, 1)], [{}]) == [None]
    chief.join()
    assert results == [[None]]
    with servers_at(names):
        pass
    for stranger in strangers:
        stranger.close()


def test_a_restarted_worker_is_accepted():
    names = addresses(3)

    def connect_and_die():
        with connect(names[0]) as connection:
            connection.sendall(b'{"keras_bot_worker": 1, "facts": {}}\n')
            time.sleep(0.2)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        chief = pool.submit(run_workers, [Cluster(names, 0)], [{}])
        pool.submit(connect_and_die).result()
        assert run_workers([Cluster(names, 1), Cluster(names, 2)], [{}, {}]) == [None, None]
        assert chief.result() == [None]


def test_a_restarted_chief_is_found():
    names = addresses(2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = socket.create_server(("", split_address(names[0])[1]))
        worker = pool.submit(run_workers, [Cluster(names, 1)], [{}])
        first.accept()[0].close()
        first.close()
        assert run_workers([Cluster(names, 0)], [{}]) == [None]
        assert worker.result() == [None]


def test_another_service_at_the_chiefs_address_is_reported():
    names = addresses(2)
    with socket.create_server(("", split_address(names[0])[1])) as service:

        def respond():
            while True:
                try:
                    connection, _ = service.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.0 400 Bad Request\n")

        threading.Thread(target=respond, daemon=True).start()
        with pytest.raises(RunError, match="another program is listening on that address"):
            rendezvous(Cluster(names, 1), {}, 1)
        service.shutdown(socket.SHUT_RDWR)


def test_the_chiefs_port_is_free_when_its_result_arrives():
    names = addresses(2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        chief = pool.submit(run_workers, [Cluster(names, 0)], [{}])
        with connect(names[0]) as worker:
            worker.sendall(hello_line(1, {"TF_CONFIG's cluster": ",".join(names)}))
            assert RendezvousResult.from_line(read_line(worker)) == RendezvousResult("go")
            with servers_at(names):  # as TensorFlow's are, while the chief may still be closing
                pass
        assert chief.result() == [None]


def test_a_startup_error_is_reported_before_differences():
    facts = [{"seed": "1", STARTUP_ERROR: "The run_dir is a file."}, {"seed": "2", STARTUP_ERROR: ""}]
    assert describe_differences(facts) == "Worker 0 cannot start: The run_dir is a file."
