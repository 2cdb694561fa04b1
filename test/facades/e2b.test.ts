import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import * as sdk from 'e2b';
import * as older from 'e2b-older';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { until } from '../support/sandbox-commands.ts';
import { makeE2bBed, type E2bBed } from '../support/e2b-server.ts';

let bed: E2bBed;
let opts: { apiKey: string; apiUrl: string; sandboxUrl: string; requestTimeoutMs: number };

beforeAll(async () => {
  bed = await makeE2bBed();
  opts = { apiKey: bed.apiKey, apiUrl: bed.server.url, sandboxUrl: bed.server.url, requestTimeoutMs: 60_000 };
});

afterAll(async () => {
  await bed.close();
});

const GENERATIONS = [
  ['e2b 2.51 (/v2 routes)', sdk],
  ['e2b 2.50 (routes of before)', older as unknown as typeof sdk],
] as const;

function tokenOf(sandbox: sdk.Sandbox | undefined): string {
  return (sandbox as unknown as { envdAccessToken: string }).envdAccessToken;
}

function askPort(headers: Record<string, string>): Promise<Response> {
  return fetch(`${bed.server.url}/page?x=1`, { headers });
}

/** A folder without a record is no sandbox yet, or none any more; the provider removes it in its own time. */
function foldersOf(): string[] {
  const root = path.join(bed.home, 'sandboxes');
  return readdirSync(root).filter((name) => existsSync(path.join(root, name, 'sandbox.json')));
}

describe.each(GENERATIONS)('a program of %s', (_name, { Sandbox, CommandExitError, FileType }) => {
  let sandbox: sdk.Sandbox;

  beforeAll(async () => {
    sandbox = await Sandbox.create({ ...opts, envs: { FROM_CREATE: 'yes' }, metadata: { name: 'a b&c=d/ü' } });
  });

  afterAll(async () => {
    await sandbox.kill();
  });

  it('runs a command and reads what it says', async () => {
    const seen: string[] = [];
    const line = 'echo "$GREETING $FROM_CREATE $HOME $(pwd)"; echo oops >&2';
    const result = await sandbox.commands.run(line, {
      envs: { GREETING: 'hello' },
      onStdout: (data) => void seen.push(data),
    });
    expect(result).toMatchObject({ exitCode: 0, stdout: 'hello yes /home/user /home/user\n', stderr: 'oops\n' });
    expect(seen.join('')).toBe(result.stdout);
    expect((await sandbox.commands.run('pwd', { cwd: '/tmp', user: 'root' })).stdout).toBe('/tmp\n');
  });

  it('is told of an exit code and of a signal', async () => {
    const failed = sandbox.commands.run('echo out; echo err >&2; exit 3');
    await expect(failed).rejects.toBeInstanceOf(CommandExitError);
    await expect(failed).rejects.toMatchObject({ exitCode: 3, stdout: 'out\n', stderr: 'err\n' });
    await expect(sandbox.commands.run('kill -9 $$')).rejects.toMatchObject({ exitCode: -1, error: 'signal: killed' });
  });

  it('ends a command at its time limit', async () => {
    const slow = sandbox.commands.run('sleep 600', { timeoutMs: 500 });
    await expect(slow).rejects.toMatchObject({ name: 'TimeoutError' });
    const isGone = async (): Promise<boolean> =>
      (await sandbox.commands.list()).every((each) => !each.args.includes('sleep 600'));
    await until('it is gone', isGone);
  });

  it('starts a command in the background, feeds it, finds it, connects to it and kills it', async () => {
    const line = 'while read -r line; do echo "got $line"; done; echo over';
    const started = await sandbox.commands.run(line, { background: true, stdin: true, timeoutMs: 0 });
    await started.sendStdin('one\n');
    await until('it answers', () => Promise.resolve(started.stdout === 'got one\n'));
    expect(await sandbox.commands.list()).toMatchObject([
      { pid: started.pid, cmd: '/bin/bash', args: ['-l', '-c', line] },
    ]);
    const again = await sandbox.commands.connect(started.pid);
    await sandbox.commands.sendStdin(started.pid, 'zwei ü\n');
    await started.closeStdin();
    expect(await started.wait()).toMatchObject({ exitCode: 0, stdout: 'got one\ngot zwei ü\nover\n' });
    expect((await again.wait()).stdout).toBe('got zwei ü\nover\n');
    const doomed = await sandbox.commands.run('sleep 600', { background: true, timeoutMs: 0 });
    expect(await doomed.kill()).toBe(true);
    await expect(doomed.wait()).rejects.toMatchObject({ exitCode: -1 });
    expect(await doomed.kill()).toBe(false);
    expect(await sandbox.commands.list()).toEqual([]);
    await expect(sandbox.commands.connect(99_999)).rejects.toMatchObject({ name: 'NotFoundError' });
  });

  it('leaves a command to itself when it disconnects', async () => {
    const started = await sandbox.commands.run('while [ ! -e go ]; do sleep 0.05; done; echo went', {
      background: true,
    });
    await started.disconnect();
    const again = await sandbox.commands.connect(started.pid);
    await sandbox.files.write('go', '');
    expect((await again.wait()).stdout).toBe('went\n');
    await sandbox.files.remove('go');
  });

  it('writes, reads, lists and removes files', async () => {
    const written = await sandbox.files.write('notes/hello.txt', 'hello');
    expect(written).toMatchObject({ name: 'hello.txt', type: 'file', path: '/home/user/notes/hello.txt' });
    expect(await sandbox.files.read('/home/user/notes/hello.txt')).toBe('hello');
    expect((await sandbox.commands.run('cat notes/hello.txt')).stdout).toBe('hello');
    const info = await sandbox.files.getInfo('notes/hello.txt');
    expect(info).toMatchObject({ name: 'hello.txt', type: FileType.FILE, size: 5, permissions: '-rw-r--r--' });
    expect(await sandbox.files.makeDir('notes/deep')).toBe(true);
    expect(await sandbox.files.makeDir('notes/deep')).toBe(false);
    await sandbox.files.rename('notes/hello.txt', 'notes/deep/renamed.txt');
    expect(await sandbox.files.exists('notes/hello.txt')).toBe(false);
    const names = (await sandbox.files.list('notes', { depth: 2 })).map((each) => [each.path, each.type]);
    expect(names).toEqual([
      ['/home/user/notes/deep', 'dir'],
      ['/home/user/notes/deep/renamed.txt', 'file'],
    ]);
    await sandbox.commands.run('ln -s deep/renamed.txt notes/link');
    const link = { type: 'file', symlinkTarget: '/home/user/notes/deep/renamed.txt' };
    expect(await sandbox.files.getInfo('notes/link')).toMatchObject(link);
    await sandbox.files.remove('notes');
    expect(await sandbox.files.exists('notes')).toBe(false);
    await expect(sandbox.files.read('notes/hello.txt')).rejects.toMatchObject({ name: 'FileNotFoundError' });
    await expect(sandbox.files.list('notes')).rejects.toMatchObject({ name: 'FileNotFoundError' });
  });

  it('sends many files in one form, and large ones as a stream or compressed', async () => {
    const both = await sandbox.files.write([
      { path: 'many/a', data: 'A' },
      { path: '/tmp/b', data: new Uint8Array([0, 255, 10]).buffer },
    ]);
    expect(both.map((each) => each.path)).toEqual(['/home/user/many/a', '/tmp/b']);
    expect([...(await sandbox.files.read('/tmp/b', { format: 'bytes' }))]).toEqual([0, 255, 10]);
    const block = new Uint8Array(1024 * 1024).fill(65);
    let left = 24;
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        left -= 1;
        if (left < 0) controller.close();
        else controller.enqueue(block);
      },
    });
    await sandbox.files.write('many/big', stream);
    await sandbox.files.write('many/packed', 'B'.repeat(100_000), { gzip: true });
    const { stdout } = await sandbox.commands.run('wc -c < many/big; wc -c < many/packed; tr -d A < many/big | wc -c');
    expect(stdout).toBe(`${24 * block.length}\n100000\n0\n`);
    let sizeBytes = 0;
    for await (const piece of await sandbox.files.read('many/big', { format: 'stream' })) sizeBytes += piece.length;
    expect(sizeBytes).toBe(24 * block.length);
    expect(await sandbox.files.read('many/packed')).toHaveLength(100_000);
    await sandbox.files.write('many/none', '');
    expect(await sandbox.files.read('many/none')).toBe('');
  });

  it('watches a folder', async () => {
    await sandbox.files.makeDir('watched/deep');
    const seen: string[] = [];
    const handle = await sandbox.files.watchDir('watched', (event) => void seen.push(`${event.type} ${event.name}`), {
      recursive: true,
    });
    await sandbox.commands.run('cd watched; echo x > "a ü"; echo y > deep/b; mv "a ü" c; chmod 600 c; rm c');
    await until('the last event is there', () => Promise.resolve(seen.includes('remove c')));
    for (const event of ['create a ü', 'write a ü', 'create deep/b', 'rename a ü', 'create c', 'chmod c', 'remove c']) {
      expect(seen).toContain(event);
    }
    await handle.stop();
    await expect(sandbox.files.watchDir('nowhere', () => undefined)).rejects.toMatchObject({
      name: 'FileNotFoundError',
    });
  });

  it('works at a terminal', async () => {
    let shown = '';
    const decoder = new TextDecoder();
    const terminal = await sandbox.pty.create({
      cols: 90,
      rows: 20,
      onData: (data) => void (shown += decoder.decode(data, { stream: true })),
      envs: { PS1: '> ' },
    });
    const type = (text: string): Promise<void> => sandbox.pty.sendInput(terminal.pid, new TextEncoder().encode(text));
    await type('stty size; tty\n');
    await until('its size is shown', () => Promise.resolve(/20 90\s+\/dev\/pts/.test(shown)));
    await sandbox.pty.resize(terminal.pid, { cols: 132, rows: 40 });
    await type('stty size\n');
    await until('its new size is shown', () => Promise.resolve(shown.includes('40 132')));
    await type('exit 0\n');
    expect(await terminal.wait()).toMatchObject({ exitCode: 0 });
  });

  it('is found by its metadata, and told about', async () => {
    const found = await Sandbox.list({ ...opts, query: { metadata: { name: 'a b&c=d/ü' } } }).nextItems();
    expect(found.map((each) => each.sandboxId)).toContain(sandbox.sandboxId);
    expect(await Sandbox.list({ ...opts, query: { metadata: { name: 'other' } } }).nextItems()).toEqual([]);
    const info = await sandbox.getInfo();
    expect(info).toMatchObject({ templateId: 'base', state: 'running', metadata: { name: 'a b&c=d/ü' } });
    expect(info.endAt.getTime()).toBeGreaterThan(Date.now());
    await sandbox.setTimeout(3_600_000);
    expect((await sandbox.getInfo()).endAt.getTime()).toBeGreaterThan(Date.now() + 3_000_000);
    const [metrics] = await sandbox.getMetrics();
    expect(metrics?.cpuCount).toBeGreaterThan(0);
    expect(metrics?.memUsed).toBeGreaterThan(0);
  });

  it('pauses with its memory, and goes on where it was', async () => {
    const counting = await sandbox.commands.run('n=0; while :; do n=$((n+1)); echo $n > n; sleep 0.02; done', {
      background: true,
      timeoutMs: 0,
    });
    await until('it counts', () => sandbox.files.exists('n'));
    expect(await sandbox.pause()).toBe(true);
    expect(await sandbox.pause()).toBe(false);
    expect(await sandbox.isRunning()).toBe(false);
    expect((await sandbox.getInfo()).state).toBe('paused');
    await expect(sandbox.commands.run('true')).rejects.toMatchObject({ name: 'SandboxNotFoundError' });
    const again = await Sandbox.connect(sandbox.sandboxId, opts);
    expect((await again.commands.list()).map((each) => each.pid)).toContain(counting.pid);
    const before = Number(await again.files.read('n'));
    await until('it counts on', async () => Number(await again.files.read('n')) > before);
    expect(await again.commands.kill(counting.pid)).toBe(true);
  });

  it('starts others from what it saved', async () => {
    await sandbox.files.write('kept/file', 'saved');
    const snapshot = await sandbox.createSnapshot();
    await sandbox.files.write('kept/file', 'changed');
    const copy = await Sandbox.create(snapshot.snapshotId, opts);
    expect(await copy.files.read('kept/file')).toBe('saved');
    await copy.kill();
    const listed = await sandbox.listSnapshots().nextItems();
    expect(listed.map((each) => each.snapshotId)).toEqual([snapshot.snapshotId]);
    expect(await Sandbox.deleteSnapshot(snapshot.snapshotId, opts)).toBe(true);
    expect(await Sandbox.deleteSnapshot(snapshot.snapshotId, opts)).toBe(false);
  });

  it('is told what is gone', async () => {
    const gone = await Sandbox.create(opts);
    expect(await gone.kill()).toBe(true);
    expect(await gone.kill()).toBe(false);
    expect(await gone.isRunning()).toBe(false);
    await expect(gone.commands.run('true')).rejects.toMatchObject({ name: 'SandboxNotFoundError' });
    await expect(gone.setTimeout(1_000)).rejects.toMatchObject({ name: 'SandboxNotFoundError' });
    await expect(Sandbox.connect(gone.sandboxId, opts)).rejects.toMatchObject({ name: 'SandboxNotFoundError' });
    await expect(Sandbox.create('no-such-template', opts)).rejects.toMatchObject({ statusCode: 404 });
  });
});

describe('who may do what', () => {
  it('refuses wrong keys, keys for model calls, and tokens of other sandboxes', async () => {
    const wrong = sdk.Sandbox.create({ ...opts, apiKey: 'lhk_wrong' });
    await expect(wrong).rejects.toMatchObject({ name: 'AuthenticationError' });
    const [one, two] = await Promise.all([1, 2].map(() => sdk.Sandbox.create(opts)));
    const ask = (token: string | undefined, id = one?.sandboxId ?? ''): Promise<Response> =>
      fetch(`${bed.server.url}/files?path=/etc/passwd`, {
        headers: { 'e2b-sandbox-id': id, ...(token === undefined ? {} : { 'x-access-token': token }) },
      });
    expect((await ask(tokenOf(one))).status).toBe(200);
    for (const token of [undefined, '', 'wrong', tokenOf(two)]) expect((await ask(token)).status).toBe(401);
    for (const each of [one, two]) await each?.kill();
  });

  it('hides the sandboxes and snapshots of one team from another', async () => {
    const mine = await sdk.Sandbox.create(opts);
    const saved = await mine.createSnapshot({ name: 'mine' });
    const theirs = { ...opts, apiKey: await bed.keyOf('another-team') };
    expect(await sdk.Sandbox.list(theirs).nextItems()).toEqual([]);
    expect(await sdk.Sandbox.listSnapshots(theirs).nextItems()).toEqual([]);
    expect(await sdk.Sandbox.kill(mine.sandboxId, theirs)).toBe(false);
    expect(await sdk.Sandbox.deleteSnapshot(saved.snapshotId, theirs)).toBe(false);
    const calls = [
      () => sdk.Sandbox.connect(mine.sandboxId, theirs),
      () => sdk.Sandbox.getInfo(mine.sandboxId, theirs),
      () => sdk.Sandbox.pause(mine.sandboxId, theirs),
      () => sdk.Sandbox.createSnapshot(mine.sandboxId, theirs),
      () => sdk.Sandbox.updateNetwork(mine.sandboxId, {}, theirs),
    ];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ name: 'SandboxNotFoundError' });
    await expect(sdk.Sandbox.create(saved.snapshotId, theirs)).rejects.toMatchObject({ statusCode: 404 });
    expect(await sdk.Sandbox.deleteSnapshot('mine', opts)).toBe(true);
    await mine.kill();
  });

  it('takes URLs that were signed, as long as they hold', async () => {
    const sandbox = await sdk.Sandbox.create(opts);
    await sandbox.files.write('signed.txt', 'signed');
    const url = await sandbox.downloadUrl('signed.txt', { useSignatureExpiration: 60 });
    expect(await (await fetch(url)).text()).toBe('signed');
    expect((await fetch(url.replace('signed.txt', 'other.txt'))).status).toBe(401);
    expect((await fetch(url, { method: 'POST', body: 'x' })).status).toBe(401);
    expect((await fetch(await sandbox.downloadUrl('signed.txt', { useSignatureExpiration: -5 }))).status).toBe(401);
    const form = new FormData();
    form.append('file', new Blob(['uploaded']), 'up.txt');
    expect((await fetch(await sandbox.uploadUrl('up.txt'), { method: 'POST', body: form })).status).toBe(200);
    expect(await sandbox.files.read('up.txt')).toBe('uploaded');
    await sandbox.kill();
  });

  it('opens a port to who has the traffic token', async () => {
    const sandbox = await sdk.Sandbox.create(opts);
    const serve =
      'perl -MIO::Socket::INET -e \'my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 8080, ReuseAddr => 1) or die; while (my $c = $s->accept) { my $l = <$c>; print $c "HTTP/1.0 200 OK\\r\\ncontent-length: " . length($l) . "\\r\\n\\r\\n$l"; close $c }\'';
    await sandbox.commands.run(serve, { background: true, timeoutMs: 0 });
    const token = sandbox.trafficAccessToken ?? '';
    const byHeaders = { 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': '8080' };
    await until(
      'it answers',
      async () => (await askPort({ ...byHeaders, 'e2b-traffic-access-token': token })).status === 200,
    );
    const answer = await askPort({ ...byHeaders, 'e2b-traffic-access-token': token });
    expect(await answer.text()).toContain('GET /page?x=1');
    expect((await askPort(byHeaders)).status).toBe(403);
    expect(
      (await askPort({ ...byHeaders, 'e2b-sandbox-port': '8081', 'e2b-traffic-access-token': token })).status,
    ).toBe(502);
    await sandbox.kill();
  });

  it('has no network, whatever is asked for', async () => {
    const sandbox = await sdk.Sandbox.create({
      ...opts,
      allowInternetAccess: true,
      network: { allowOut: ['1.1.1.1'] },
    });
    const info = await sandbox.getInfo();
    expect(info).toMatchObject({ allowInternetAccess: false, network: { allowOut: ['1.1.1.1'] } });
    const { stdout } = await sandbox.commands.run(
      'cat /proc/net/dev | tail -n +3; timeout 5 bash -c "</dev/tcp/1.1.1.1/80" || echo none',
    );
    expect(stdout).toMatch(/^\s*lo:[^\n]*\nnone\n$/);
    await sandbox.updateNetwork({ denyOut: ['10.0.0.0/8'] });
    expect((await sandbox.getInfo()).network).toEqual({ denyOut: ['10.0.0.0/8'] });
    await sandbox.kill();
  });
});

describe('limits', () => {
  it('gives lists in pages', async () => {
    const team = { ...opts, apiKey: await bed.keyOf('paged') };
    const made = await Promise.all([1, 2, 3].map(() => sdk.Sandbox.create({ ...team, metadata: { paged: 'yes' } })));
    const pages = sdk.Sandbox.list({ ...team, limit: 2, query: { metadata: { paged: 'yes' }, state: ['running'] } });
    const first = await pages.nextItems();
    const second = await pages.nextItems();
    expect([first.length, second.length, pages.hasNext]).toEqual([2, 1, false]);
    const ids = [...first, ...second].map((each) => each.sandboxId).toSorted();
    expect(ids).toEqual(made.map((each) => each.sandboxId).toSorted());
    await Promise.all(made.map((each) => each.kill()));
  });

  it('refuses a team more sandboxes than it may have', async () => {
    const server = await bed.start(0, { LONGHAUL_E2B_MAX_SANDBOXES: '2' });
    const team = { ...opts, apiUrl: server.url, sandboxUrl: server.url, apiKey: await bed.keyOf('greedy') };
    const asked = await Promise.allSettled([1, 2, 3, 4].map(() => sdk.Sandbox.create(team)));
    const made = asked.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    expect(made).toHaveLength(2);
    for (const each of asked)
      if (each.status === 'rejected') expect(each.reason).toMatchObject({ name: 'RateLimitError' });
    await Promise.all(made.map((each) => each.kill()));
    await (await sdk.Sandbox.create(team)).kill();
    await server.kill();
  });

  it.each([
    ['a body that is not JSON', '{', 400],
    ['a body that is too large', JSON.stringify({ templateID: 'x'.repeat(2_000_000) }), 413],
    ['a template of another type', '{"templateID": 7}', 400],
    ['a time that is too long', '{"templateID": "base", "timeout": 864000}', 400],
    ['request rules', '{"templateID": "base", "network": {"rules": {"x.com": [{"transform": {}}]}}}', 400],
    ['volumes', '{"templateID": "base", "volumeMounts": [{"name": "v", "path": "/v"}]}', 400],
  ])('refuses %s', async (_what, body, status) => {
    const headers = { 'x-api-key': bed.apiKey, 'content-type': 'application/json' };
    const answer = await fetch(`${bed.server.url}/v2/sandboxes`, { method: 'POST', headers, body });
    expect(answer.status).toBe(status);
    expect(await answer.json()).toMatchObject({ code: status, message: expect.any(String) });
  });

  it('answers what it does not have', async () => {
    const headers = { 'x-api-key': bed.apiKey };
    const status = async (method: string, at: string): Promise<number> =>
      (await fetch(bed.server.url + at, { method, headers })).status;
    expect(await status('GET', '/templates')).toBe(501);
    expect(await status('POST', '/sandboxes/x/fork')).toBe(501);
    expect(await status('GET', '/nowhere')).toBe(404);
    expect(await status('PATCH', '/sandboxes')).toBe(405);
    expect(await status('GET', '/sandboxes/x?a=%ff')).toBe(404);
  });
});

describe('time and death', () => {
  it('ends a sandbox when its time is over, or pauses it', async () => {
    const ended = await sdk.Sandbox.create({ ...opts, timeoutMs: 1_000 });
    const paused = await sdk.Sandbox.create({ ...opts, lifecycle: { onTimeout: 'pause' } });
    await paused.files.write('kept', 'kept');
    await paused.setTimeout(1_000);
    await until('one is gone', async () => !(await ended.isRunning()));
    await until('the other is paused', async () => (await paused.getInfo()).state === 'paused');
    expect(await (await sdk.Sandbox.connect(paused.sandboxId, opts)).files.read('kept')).toBe('kept');
    await paused.kill();
  });

  it('outlives a server that is killed: commands go on and can be connected to', async () => {
    const server = await bed.start();
    const mine = { ...opts, apiUrl: server.url, sandboxUrl: server.url };
    const sandbox = await sdk.Sandbox.create(mine);
    const started = await sandbox.commands.run('read -r a; echo "got $a"; read -r b; echo "got $b"; exit 5', {
      background: true,
      stdin: true,
      timeoutMs: 0,
    });
    await started.sendStdin('first\n');
    await until('it answers', () => Promise.resolve(started.stdout === 'got first\n'));
    await server.kill();
    await expect(started.wait()).rejects.toThrow();
    const heir = await bed.start(Number(new URL(server.url).port));
    const again = await sdk.Sandbox.connect(sandbox.sandboxId, mine);
    expect((await again.commands.list()).map((each) => each.pid)).toEqual([started.pid]);
    const connected = await again.commands.connect(started.pid);
    await again.commands.sendStdin(started.pid, 'second\n');
    await expect(connected.wait()).rejects.toMatchObject({ exitCode: 5, stdout: 'got second\n' });
    // The token of before is the token of now.
    expect((await sandbox.commands.run('echo still')).stdout).toBe('still\n');
    await again.kill();
    await heir.kill();
  });

  it('leaves nothing behind when it is killed while it makes, pauses and ends sandboxes', async () => {
    await until('no sandbox is left', async () => {
      for (const each of await sdk.Sandbox.list(opts).nextItems()) await sdk.Sandbox.kill(each.sandboxId, opts);
      return foldersOf().length === 0;
    });
    const server = await bed.start();
    const mine = { ...opts, apiUrl: server.url, sandboxUrl: server.url, requestTimeoutMs: 5_000 };
    const [pausing, ending] = await Promise.all([1, 2].map(() => sdk.Sandbox.create(mine)));
    const making = [1, 2, 3].map(() => sdk.Sandbox.create(mine));
    const calls = Promise.allSettled([...making, pausing?.pause(), ending?.kill()]);
    await until('work has begun', () => Promise.resolve(foldersOf().length > 2));
    await server.kill();
    await calls;
    const heir = await bed.start(0, { LONGHAUL_E2B_GRACE_MS: '100' });
    await bed.server.kill();
    bed.server = heir;
    opts = { ...opts, apiUrl: heir.url, sandboxUrl: heir.url };
    await until('every sandbox is one that a list shows', async () => {
      const listed = await sdk.Sandbox.list(opts).nextItems();
      const settled = await bed.pool.query('SELECT 1 FROM e2b_sandboxes WHERE NOT settled');
      return settled.rowCount === 0 && foldersOf().length === listed.length;
    });
    for (const each of await sdk.Sandbox.list(opts).nextItems()) {
      expect(await sdk.Sandbox.kill(each.sandboxId, opts)).toBe(true);
    }
    await until('no folder is left', () => Promise.resolve(foldersOf().length === 0));
  });
});
