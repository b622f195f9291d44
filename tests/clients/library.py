"""The Python library qemu.qmp, used as its documentation shows, against a running machine.

Usage: library.py SOCKET. Prints one line when everything went as it must; raises otherwise.
"""

import asyncio
import sys

from qemu.qmp import ExecuteError, QMPClient


async def one_session(path: str) -> None:
    client = QMPClient("test")
    await client.connect(path)
    greeting = client.greeting
    assert "oob" in greeting.QMP.capabilities, greeting
    assert greeting.QMP.version["qemu"]["major"] >= 8, greeting

    version = await client.execute("query-version")
    assert version == greeting.QMP.version, version
    names = {entry["name"] for entry in await client.execute("query-commands")}
    assert {"query-status", "stop", "cont", "quit"} <= names, names
    schema = await client.execute("query-qmp-schema")
    described = {entry["name"] for entry in schema if entry["meta-type"] == "command"}
    assert names == described, names ^ described
    assert (await client.execute("query-status"))["running"] is True

    # Events come while commands go on, and are sorted out by name.
    with client.listener(("STOP", "RESUME")) as events:
        assert await client.execute("stop") == {}
        stop = await asyncio.wait_for(events.get(), 30)
        assert stop["event"] == "STOP" and stop["timestamp"]["seconds"] > 0, stop
        assert (await client.execute("query-status"))["status"] == "paused"
        assert await client.execute("cont") == {}
        assert (await asyncio.wait_for(events.get(), 30))["event"] == "RESUME"
        assert events.empty()

    # Errors keep their class and their text.
    try:
        await client.execute("no-such-command")
    except ExecuteError as error:
        assert error.error_class == "CommandNotFound", error
    else:
        raise AssertionError("a command that does not exist was answered")
    try:
        await client.execute("memsave", {"val": 0, "size": "large", "filename": "/dev/null"})
    except ExecuteError as error:
        assert error.error_class == "GenericError", error
        assert "size" in str(error), error
    else:
        raise AssertionError("a string was taken for a number")

    # Many commands at once: each gets its own answer.
    commands = ["query-status", "query-name", "query-version", "query-kvm"] * 50
    answers = await asyncio.gather(*(client.execute(command) for command in commands))
    expected = {command: await client.execute(command) for command in set(commands)}
    for command, answer in zip(commands, answers):
        assert answer == expected[command], (command, answer)

    # Out-of-band execution was negotiated; a command that does not allow it says so.
    try:
        await client.execute("query-status", oob=True)
    except ExecuteError as error:
        assert "OOB" in str(error), error
    else:
        raise AssertionError("query-status was executed out of band")

    await client.disconnect()


async def two_at_once(path: str) -> None:
    """Two clients of one monitor both hear what happens."""
    first, second = QMPClient("first"), QMPClient("second")
    await first.connect(path)
    await second.connect(path)
    with second.listener("STOP") as events:
        await first.execute("stop")
        await asyncio.wait_for(events.get(), 30)
    await second.execute("cont")
    await first.disconnect()
    assert (await second.execute("query-status"))["running"] is True
    await second.disconnect()


async def leave(path: str) -> None:
    """The monitor ends after `quit`, and not before the answer."""
    client = QMPClient("last")
    await client.connect(path)
    with client.listener("SHUTDOWN") as events:
        assert await client.execute("quit") == {}
        shutdown = await asyncio.wait_for(events.get(), 30)
        assert shutdown["data"] == {"guest": False, "reason": "host-qmp-quit"}, shutdown
    try:
        await client.disconnect()
    except EOFError:
        pass  # The library tells of a server that left first.


async def main(path: str) -> None:
    await one_session(path)
    await one_session(path)
    await two_at_once(path)
    await leave(path)
    print("everything went as it must")


asyncio.run(main(sys.argv[1]))
