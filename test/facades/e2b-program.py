"""A program for E2B as its documents have them; prints what it found as JSON."""

import json

from e2b import CommandExitException, FileNotFoundException, Sandbox, SandboxQuery, SandboxState

found = {}

with Sandbox.create(metadata={"from": "python ü"}, envs={"FROM_CREATE": "yes"}, timeout=120) as sandbox:
    lines = []
    result = sandbox.commands.run('echo "$FROM_CREATE $MORE"', envs={"MORE": "more"}, on_stdout=lines.append)
    found["run"] = [result.exit_code, result.stdout, "".join(lines)]
    try:
        sandbox.commands.run("echo err >&2; exit 4")
    except CommandExitException as error:
        found["exit"] = [error.exit_code, error.stderr]

    started = sandbox.commands.run('read -r line; echo "got $line"', background=True, stdin=True)
    found["listed"] = started.pid in [each.pid for each in sandbox.commands.list()]
    sandbox.commands.send_stdin(started.pid, "input\n")
    found["background"] = started.wait().stdout
    doomed = sandbox.commands.run("sleep 600", background=True, timeout=0)
    found["killed"] = [sandbox.commands.kill(doomed.pid), sandbox.commands.kill(doomed.pid)]

    sandbox.files.make_dir("folder")
    watcher = sandbox.files.watch_dir("folder")
    sandbox.files.write("folder/file.txt", "content")
    sandbox.files.write("folder/bytes", b"\x00\xff")
    found["read"] = [sandbox.files.read("folder/file.txt"), list(sandbox.files.read("folder/bytes", format="bytes"))]
    found["entries"] = sorted([each.name, each.type.value] for each in sandbox.files.list("folder"))
    events = []
    while not any(each[1] == "bytes" for each in events):
        events += [[each.type.value, each.name] for each in watcher.get_new_events()]
    found["watched"] = ["create", "bytes"] in events or ["write", "bytes"] in events
    watcher.stop()
    sandbox.files.rename("folder/file.txt", "folder/renamed.txt")
    sandbox.files.remove("folder/bytes")
    found["left"] = [each.path for each in sandbox.files.list("folder")]
    try:
        sandbox.files.read("folder/bytes")
    except FileNotFoundException:
        found["missing"] = True

    query = SandboxQuery(metadata={"from": "python ü"}, state=[SandboxState.RUNNING])
    found["found"] = sandbox.sandbox_id in [each.sandbox_id for each in Sandbox.list(query=query).next_items()]
    found["state"] = sandbox.get_info().state.value
    sandbox.pause()
    found["paused"] = [sandbox.is_running(), sandbox.get_info().state.value]
    again = Sandbox.connect(sandbox.sandbox_id)
    found["again"] = again.commands.run("cat folder/renamed.txt").stdout
    snapshot = again.create_snapshot()
    copy = Sandbox.create(snapshot.snapshot_id)
    found["copy"] = copy.files.read("folder/renamed.txt")
    copy.kill()
    found["deleted"] = Sandbox.delete_snapshot(snapshot.snapshot_id)

found["running"] = sandbox.is_running()
print(json.dumps(found))
